"""Exported models against the processor's peak, and against each other."""

import tempfile
import time

import numpy as np
from threadpoolctl import threadpool_limits

from mobile_export.benchmark import random_inputs
from mobile_export.litert import Runner
from tests.benchmarks import figure

LENGTH, NUM_LABELS, RUNS, WARMUP = 64, 20, 100, 10


def model(num_layers=6):
    """A model of MiniLM's sizes, but for the vocabulary, which costs no time."""
    from keras_compress.bert.config import BertConfig
    from keras_compress.bert.task_model import TaskModel
    from keras_compress.bert.tokenizer import SPECIAL_PIECES, Tokenizer

    config = BertConfig(
        vocab_size=1000,
        hidden_size=384,
        num_layers=num_layers,
        num_heads=12,
        intermediate_size=1536,
        pooling="cls",
    )
    tokenizer = Tokenizer([*SPECIAL_PIECES, *(f"word{i}" for i in range(996))])
    return TaskModel(config, tokenizer, "classification", [str(i) for i in range(NUM_LABELS)])


def exported(num_layers=6, **settings):
    """Runner and config of the model, exported as float32."""
    from mobile_export.convert import export

    task_model = model(num_layers)
    with tempfile.TemporaryDirectory() as folder:
        (facts,) = export(task_model, folder, ("float32",), sequence_length=LENGTH, **settings)
        if facts["partitions"] != 1:
            raise ValueError(
                f"The graph must run as one XNNPACK partition. Received: {facts['partitions']}."
            )
        return Runner(facts["path"]), task_model.config


def cpu_ms(*functions):
    """Median milliseconds of each function, taking turns. Processor time of this thread, which does all the work: what
    other programs take of the machine's cores does not count (what they take of caches and clock rate does)."""
    seconds = np.empty((WARMUP + RUNS, len(functions)))
    for row in seconds:
        for place, function in enumerate(functions):
            start = time.thread_time()
            function()
            row[place] = time.thread_time() - start
    return 1e3 * np.median(seconds[WARMUP:], axis=0)


def litert_peak():
    """Share of one core's sgemm peak that the full float32 graph reaches.

    Peak: numpy's (OpenBLAS) 1024 x 1024 x 1024 float32 product on one thread, alternating with the model. Work of the
    model: its matrix products by formula (`measure.cost.flops`), everything else counted as lost time.
    """
    from keras_compress.measure.cost import flops

    runner, config = exported(cls_only=False)
    inputs, size = random_inputs(runner), 1024
    a, b = np.random.default_rng(0).random((2, size, size), np.float32)
    out = np.empty_like(a)
    with threadpool_limits(1):
        model_ms, sgemm_ms = cpu_ms(lambda: runner.run(inputs), lambda: np.matmul(a, b, out=out))
    model_rate, peak = (
        flops(config, LENGTH, NUM_LABELS) / model_ms / 1e6,
        2 * size**3 / sgemm_ms / 1e6,
    )
    return figure(
        "litert_peak",
        model_rate / peak,
        f"LiteRT float32, 6 layers, hidden 384, seq {LENGTH}: {model_rate:.1f} GFLOP/s in {model_ms:.2f} ms",
        f"numpy sgemm {size}^3, one thread: {peak:.1f} GFLOP/s",
    )


def cls_only():
    """Time with the last layer for [CLS] alone, over that of the full graph.

    With L layers the saving is one layer but for its keys and values, 84 % of 1/L at these sizes: by arithmetic the
    ratio is .72 for the 3-layer successor of the default recipe, .79 for 4 layers and .86 for 6, where it cannot pass.
    """

    def ratio(name, num_layers):
        pair = [exported(num_layers, cls_only=flag)[0] for flag in (True, False)]
        short, full = cpu_ms(*(lambda r=r, i=random_inputs(r): r.run(i) for r in pair))
        return figure(
            name,
            short / full,
            f"last layer for [CLS] only, float32, {num_layers} layers, hidden 384, "
            f"seq {LENGTH}: {short:.2f} ms",
            f"full graph: {full:.2f} ms",
        )

    return [ratio("cls_only", 3), ratio("cls_only_6_layers", 6)]


def litert_vs_onnxruntime():
    """Time in LiteRT over time in ONNX Runtime of the same full graph, dynamic int8, one thread each, 64 and 128
    pieces; ONNX Runtime with all of its optimisations. Beside it, for float32.

    Biases and norms are random: TensorFlow would leave out an addition of zeros, and spare ONNX Runtime the work.
    """
    from mobile_export.convert import FORMATS
    from mobile_export.graph import exported_graph
    from mobile_export.ort import OnnxRunner

    task_model, random = model(), np.random.default_rng(0)
    task_model.set_weights(
        {
            name: value if value.ndim > 1 else random.normal(value, 0.1).astype(np.float32)
            for name, value in task_model.weights().items()
        }
    )
    figures = []
    for length in (64, 128):
        graph = exported_graph(task_model, length, cls_only=False)
        runners = [
            kind(FORMATS[name].write(graph, False))
            for name in ("int8", "float32")
            for kind, name in ((Runner, name), (OnnxRunner, f"onnx_{name}"))
        ]
        inputs = random_inputs(runners[0])
        times = cpu_ms(*(lambda r=r, inputs=inputs: r.run(inputs) for r in runners))
        figures += [
            figure(
                "litert_vs_onnxruntime" + suffix,
                ours / theirs,
                f"LiteRT {name}, 6 layers, hidden 384, full graph, seq {length}: {ours:.2f} ms",
                f"ONNX Runtime {name}: {theirs:.2f} ms",
            )
            for name, suffix, (ours, theirs) in zip(
                ("int8", "float32"), ("", "_float"), times.reshape(2, 2)
            )
        ]
    return figures


FIGURES = {
    "litert_peak": litert_peak,
    "cls_only": cls_only,
    "litert_vs_onnxruntime": litert_vs_onnxruntime,
}
