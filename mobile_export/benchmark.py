"""Latency of exported files on this machine. Only ratios of files measured in one call are fair."""
import platform
import time
from pathlib import Path

import numpy as np

from mobile_export.litert import Runner


def benchmark(*paths, num_threads=1, runs=50, warmup=10):
    """Times whole forward passes, one file after the other in every round, so that all meet the same disturbances.

    Args:
        paths: .tflite files.
        num_threads: of XNNPACK.
        runs, warmup: forward passes per file, counted and not. The inputs are full-length random ids of the
            vocabulary (the graph is static: neither ids nor length change the work).
    Returns:
        list of dicts, one per file: `path`, `latency_ms_p50`, `latency_ms_p90`, `runs`, `device`, `threads`,
        `sequence_length`.
    Raises:
        ValueError: if a file cannot be loaded.
    """
    if runs < 1 or num_threads < 1:
        raise ValueError(f"`runs` and `num_threads` must be 1 or more. Received: {runs} and {num_threads}.")
    runners = [Runner(path, num_threads) for path in paths]
    times = interleave([lambda r=r, i=random_inputs(r): r.run(i) for r in runners], runs, warmup)
    return [{"path": str(path), "latency_ms_p50": float(np.percentile(ms, 50)),
             "latency_ms_p90": float(np.percentile(ms, 90)), "runs": runs, "device": device(), "threads": num_threads,
             "sequence_length": runner.sequence_length} for path, runner, ms in zip(paths, runners, times)]


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
    return {"input_word_ids": np.random.default_rng(seed).integers(0, runner.vocab_size, shape, dtype=np.int32),
            "input_mask": np.ones(shape, np.int32), "input_type_ids": np.zeros(shape, np.int32)}


def device():
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{platform.system()} {platform.machine()}, {names[0] if names else platform.processor() or 'unknown'}"
