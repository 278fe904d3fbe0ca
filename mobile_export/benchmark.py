"""Latency of exported files, and of the same graph in TensorFlow, on this machine.

Only ratios of what is measured in one call are fair.
"""

import os
import platform
import re
import subprocess
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from mobile_export.litert import OUTPUT_NAME
from mobile_export.ort import open_model


def benchmark(*paths, task_model=None, num_threads=1, runs=50, warmup=10):
    """Times whole forward passes, one of each per round, so that all meet the same disturbances.

    Args:
        paths: .tflite and .onnx files.
        task_model: the `TaskModel` that the files come from, to time the exported graph in
            TensorFlow, too: as a tf.function, as a call of the Keras model, and by its `predict`.
            TensorFlow's threads are chosen before it starts (TF_NUM_INTRAOP_THREADS).
        num_threads: of XNNPACK and ONNX Runtime.
        runs, warmup: forward passes of each, counted and not. The inputs are full-length random ids
            of the vocabulary (the graph is static: neither ids nor length change the work).
    Returns:
        list of dicts, one per file: `path`, `latency_ms_p50`, `latency_ms_p90`, `runs`, `device`,
        `threads`, `sequence_length`; with `task_model` three more, whose `path` is "tf.function",
        "Keras call", "Keras predict".
    Raises:
        ValueError: if a file cannot be loaded, or does not come from the model.
    """
    runners = [open_model(path, num_threads) for path in paths]
    timed = [
        (path, num_threads, runner.sequence_length, partial(runner.run, random_inputs(runner)))
        for path, runner in zip(paths, runners)
    ]
    if task_model:
        timed += _in_tensorflow(task_model, paths, runners)
    times = interleave([run for *_, run in timed], runs, warmup)
    return [
        {
            "path": str(path),
            "latency_ms_p50": float(np.percentile(ms, 50)),
            "latency_ms_p90": float(np.percentile(ms, 90)),
            "runs": runs,
            "device": device(),
            "threads": threads,
            "sequence_length": length,
        }
        for (path, threads, length, _), ms in zip(timed, times)
    ]


def _in_tensorflow(task_model, paths, runners):
    """[(name, threads, sequence length, function that runs the graph once and waits)]."""
    from keras_compress.backend import tf
    from keras_compress.bert.tasks import TASKS
    from mobile_export.graph import ANSWERS, exported_graph
    from mobile_export.parity import check_origin

    for path, runner in zip(paths, runners):
        check_origin(task_model, runner, path)
    length = runners[0].sequence_length
    # Threads of one operation. 0 stands for all cores.
    threads = (
        tf.config.threading.get_intra_op_parallelism_threads()
        or int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0))
        or os.cpu_count()
    )
    graph, answer = exported_graph(task_model, length), ANSWERS[TASKS[task_model.task].answer]
    ids = {name: tf.constant(value) for name, value in random_inputs(runners[0]).items()}
    calls = {
        "tf.function": lambda: graph.function(**ids)[OUTPUT_NAME].numpy(),
        "Keras call": lambda: answer(graph.model(ids, training=False)).numpy(),
        "Keras predict": lambda: answer(graph.model.predict(ids, verbose=0)).numpy(),
    }
    return [(name, threads, length, call) for name, call in calls.items()]


def interleave(functions, runs, warmup=0):
    """Milliseconds of each call, round robin: (functions, runs)."""
    times = np.empty((len(functions), warmup + runs))
    for run in range(warmup + runs):
        for row, function in enumerate(functions):
            start = time.perf_counter()
            function()
            times[row, run] = 1e3 * (time.perf_counter() - start)
    return times[:, warmup:]


def mean_time(content, encodings):
    """What encoded texts take on average, each in the shortest signature that it fits, as a share of what they take in the
    longest (0-1), measured in turns. None without texts.
    """
    if not encodings:
        return None
    runner = open_model(content)
    calls = [partial(runner.run, random_inputs(runner, length)) for length in runner.lengths]
    ms = interleave(calls, runs=30, warmup=5).min(axis=1)  # what other programs take does not count
    taken = np.searchsorted(runner.lengths, [len(each.ids) for each in encodings])
    return float(ms[taken].mean() / ms[-1])


def random_inputs(runner, length=None):
    """A text of random words that fills the longest signature, or that of a length."""
    length = length or runner.sequence_length
    ids = np.random.default_rng(0).integers(0, runner.vocab_size, length, np.int32)
    return runner.inputs(SimpleNamespace(ids=ids, type_ids=[0] * length))


def device():
    """The system, the processor's name, and what its instructions mean for int8."""
    cpuinfo, name = Path("/proc/cpuinfo"), platform.processor() or "unknown"
    if cpuinfo.is_file():
        about = cpuinfo.read_text(encoding="utf-8")
        named = re.search(r"^model name\s*:\s*(.+)", about, re.M)
        name = named[1] if named else name
    elif platform.system() == "Darwin":
        command = ["sysctl", "hw.optional"]
        about = subprocess.run(command, capture_output=True, text=True).stdout
    else:
        return f"{platform.system()} {platform.machine()}, {name}"
    return f"{platform.system()} {platform.machine()}, {name}, {dot_product(about)}"


def dot_product(about):
    """The instruction for products of 8-bit numbers in /proc/cpuinfo or in what macOS tells, in words."""
    flag = re.search(r"\b(avx512_vnni|avx_vnni|asimddp)\b|(avx512vnni|FEAT_DotProd): 1", about)
    if flag:
        return f"{flag[1] or flag[2]} (int8 can be about 3 times as fast as float32)"
    return "no dot-product instruction (int8 is no faster than float32)"
