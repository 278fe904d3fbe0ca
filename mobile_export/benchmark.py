"""Latency of exported files, and of the same graph in TensorFlow, on this machine. Only ratios of what is measured in
one call are fair."""

import os
import platform
import time
from pathlib import Path

import numpy as np

from mobile_export.ort import open_model


def benchmark(*paths, task_model=None, num_threads=1, runs=50, warmup=10):
    """Times whole forward passes, one after the other in every round, so that all meet the same disturbances.

    Args:
        paths: .tflite and .onnx files.
        task_model: the `TaskModel` that the files come from, to time the exported graph in TensorFlow, too: as a
            tf.function, as a call of the Keras model, and by its `predict`. TensorFlow's threads are chosen before it
            starts (TF_NUM_INTRAOP_THREADS).
        num_threads: of XNNPACK and ONNX Runtime.
        runs, warmup: forward passes of each, counted and not. The inputs are full-length random ids of the
            vocabulary (the graph is static: neither ids nor length change the work).
    Returns:
        list of dicts, one per file: `path`, `latency_ms_p50`, `latency_ms_p90`, `runs`, `device`, `threads`,
        `sequence_length`; with `task_model` three more, whose `path` is "tf.function", "Keras call", "Keras predict".
    Raises:
        ValueError: if a file cannot be loaded, or does not come from the model.
    """
    if runs < 1 or num_threads < 1:
        raise ValueError(
            f"`runs` and `num_threads` must be 1 or more. Received: {runs} and {num_threads}."
        )
    runners = [open_model(path, num_threads) for path in paths]
    functions = [lambda r=r, i=random_inputs(r): r.run(i) for r in runners]
    names, lengths = [str(path) for path in paths], [runner.sequence_length for runner in runners]
    threads = [num_threads] * len(paths)
    if task_model is not None:
        from mobile_export.convert import check_exported_from

        for path, runner in zip(paths, runners):
            check_exported_from(task_model, runner, path)
        in_tensorflow = _in_tensorflow(task_model, random_inputs(runners[0]))
        names, functions = [*names, *in_tensorflow], [*functions, *in_tensorflow.values()]
        lengths += lengths[:1] * len(in_tensorflow)
        threads += [_tensorflow_threads()] * len(in_tensorflow)
    times = interleave(functions, runs, warmup)
    return [
        {
            "path": name,
            "latency_ms_p50": float(np.percentile(ms, 50)),
            "latency_ms_p90": float(np.percentile(ms, 90)),
            "runs": runs,
            "device": device(),
            "threads": threads,
            "sequence_length": length,
        }
        for name, length, threads, ms in zip(names, lengths, threads, times)
    ]


def _in_tensorflow(task_model, inputs):
    """{name: function that runs the exported graph once on `inputs` and waits for the result}."""
    from keras_compress.backend import tf
    from keras_compress.bert.encoder import can_be_cls_only
    from mobile_export.convert import exported_graph

    model, function = exported_graph(
        task_model,
        inputs["input_mask"].shape[1],
        can_be_cls_only(task_model.config, task_model.task),
    )
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    return {
        "tf.function": lambda: next(iter(function(**tensors).values())).numpy(),
        "Keras call": lambda: tf.nn.softmax(model(tensors, training=False)).numpy(),
        "Keras predict": lambda: tf.nn.softmax(model.predict(tensors, verbose=0)).numpy(),
    }


def _tensorflow_threads():
    """Threads of one operation; 0 in its settings stands for all cores."""
    from keras_compress.backend import tf

    return (
        tf.config.threading.get_intra_op_parallelism_threads()
        or int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0))
        or os.cpu_count()
    )


def interleave(functions, runs, warmup=0, clock=time.perf_counter):
    """Milliseconds of each call, round robin: (functions, runs)."""
    times = np.empty((len(functions), warmup + runs))
    for run in range(warmup + runs):
        for row, function in enumerate(functions):
            start = clock()
            function()
            times[row, run] = 1e3 * (clock() - start)
    return times[:, warmup:]


def random_inputs(runner, seed=0):
    """A full-length text of random words."""
    shape = (1, runner.sequence_length)
    return {
        "input_word_ids": np.random.default_rng(seed).integers(
            0, runner.vocab_size, shape, dtype=np.int32
        ),
        "input_mask": np.ones(shape, np.int32),
        "input_type_ids": np.zeros(shape, np.int32),
    }


def device():
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{platform.system()} {platform.machine()}, {names[0] if names else platform.processor() or 'unknown'}"
