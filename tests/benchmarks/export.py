"""Exported models against the processor's peak, and against each other."""
import tempfile

import numpy as np
from threadpoolctl import threadpool_limits

from mobile_export.benchmark import interleave, random_inputs
from mobile_export.litert import Runner
from tests.benchmarks import figure

LENGTH, NUM_LABELS, RUNS, WARMUP = 64, 20, 60, 10


def exported(**settings):
    """Runner and config of a MiniLM-sized model: its sizes but for the vocabulary, which costs no time."""
    from keras_compress.bert.config import BertConfig
    from keras_compress.bert.task_model import TaskModel
    from keras_compress.bert.tokenizer import SPECIAL_PIECES, Tokenizer
    from mobile_export.convert import export

    config = BertConfig(vocab_size=1000, hidden_size=384, num_layers=6, num_heads=12, intermediate_size=1536,
                        pooling="cls")
    tokenizer = Tokenizer([*SPECIAL_PIECES, *(f"word{i}" for i in range(996))])
    task_model = TaskModel(config, tokenizer, "classification", [str(i) for i in range(NUM_LABELS)])
    with tempfile.TemporaryDirectory() as folder:
        facts, = export(task_model, folder, ("float32",), sequence_length=LENGTH, **settings)
        return Runner(facts["path"]), config


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
        model_ms, sgemm_ms = np.median(interleave([lambda: runner.run(inputs), lambda: np.matmul(a, b, out=out)],
                                                  RUNS, WARMUP), axis=1)
    model_rate, peak = flops(config, LENGTH, NUM_LABELS) / model_ms / 1e6, 2 * size**3 / sgemm_ms / 1e6
    return figure("litert_peak", model_rate / peak, f"LiteRT float32, 6 layers, hidden 384, seq {LENGTH}, one thread: "
                  f"{model_rate:.1f} GFLOP/s in {model_ms:.2f} ms", f"numpy sgemm {size}^3, one thread: {peak:.1f} GFLOP/s")


def cls_only():
    """Time with the last layer for [CLS] alone, over that of the full graph."""
    runners = [exported(cls_only=flag)[0] for flag in (True, False)]
    short, full = np.median(interleave([lambda r=r, i=random_inputs(r): r.run(i) for r in runners], RUNS, WARMUP), axis=1)
    return figure("cls_only", short / full, f"last layer for [CLS] only, float32, seq {LENGTH}: {short:.2f} ms",
                  f"full graph: {full:.2f} ms")


FIGURES = {"litert_peak": litert_peak, "cls_only": cls_only}
