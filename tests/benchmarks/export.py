"""Exported models against the processor's peak, and against each other."""
import tempfile
import time

import numpy as np
from threadpoolctl import threadpool_limits

from mobile_export.benchmark import interleave, random_inputs
from mobile_export.litert import Runner
from tests.benchmarks import figure

LENGTH, NUM_LABELS, RUNS, WARMUP = 64, 20, 100, 10


def exported(num_layers=6, **settings):
    """Runner and config of a model of MiniLM's sizes, but for the vocabulary, which costs no time."""
    from keras_compress.bert.config import BertConfig
    from keras_compress.bert.task_model import TaskModel
    from keras_compress.bert.tokenizer import SPECIAL_PIECES, Tokenizer
    from mobile_export.convert import export

    config = BertConfig(vocab_size=1000, hidden_size=384, num_layers=num_layers, num_heads=12, intermediate_size=1536,
                        pooling="cls")
    tokenizer = Tokenizer([*SPECIAL_PIECES, *(f"word{i}" for i in range(996))])
    task_model = TaskModel(config, tokenizer, "classification", [str(i) for i in range(NUM_LABELS)])
    with tempfile.TemporaryDirectory() as folder:
        facts, = export(task_model, folder, ("float32",), sequence_length=LENGTH, **settings)
        if facts["partitions"] != 1:
            raise ValueError(f"The graph must run as one XNNPACK partition. Received: {facts['partitions']}.")
        return Runner(facts["path"]), config


def cpu_ms(*functions):
    """Median milliseconds of each function, taking turns. Processor time of this thread, which does all the work: what
    other programs take of the machine's cores does not count (what they take of caches and clock rate does)."""
    return np.median(interleave(functions, RUNS, WARMUP, clock=time.thread_time), axis=1)


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
    model_rate, peak = flops(config, LENGTH, NUM_LABELS) / model_ms / 1e6, 2 * size**3 / sgemm_ms / 1e6
    return figure("litert_peak", model_rate / peak,
                  f"LiteRT float32, 6 layers, hidden 384, seq {LENGTH}: {model_rate:.1f} GFLOP/s in {model_ms:.2f} ms",
                  f"numpy sgemm {size}^3, one thread: {peak:.1f} GFLOP/s")


def cls_only():
    """Time with the last layer for [CLS] alone, over that of the full graph.

    With L layers the saving is one layer but for its keys and values, 84 % of 1/L at these sizes: by arithmetic the
    ratio is .72 for the 3-layer successor of the default recipe, .79 for 4 layers and .86 for 6, where it cannot pass.
    """
    def ratio(name, num_layers):
        pair = [exported(num_layers, cls_only=flag)[0] for flag in (True, False)]
        short, full = cpu_ms(*(lambda r=r, i=random_inputs(r): r.run(i) for r in pair))
        return figure(name, short / full, f"last layer for [CLS] only, float32, {num_layers} layers, hidden 384, "
                      f"seq {LENGTH}: {short:.2f} ms", f"full graph: {full:.2f} ms")

    return [ratio("cls_only", 3), ratio("cls_only_6_layers", 6)]


FIGURES = {"litert_peak": litert_peak, "cls_only": cls_only}
