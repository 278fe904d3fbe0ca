"""Latency of exported .tflite files on Android phones: LiteRT's `benchmark_model`, pushed and run over adb.

Where the forms of output come from: timings, "count=" and "footprint" from LiteRT's tflite/tools/benchmark/
benchmark_model.cc and, older, tensorflow#42507; the list of devices and the errors from adb 29; thermal status from
android.stackexchange.com/q/246774. Names of files never reach the phone's shell: what is pushed has names of its own.
"""

import logging
import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

from ai_edge_litert.schema_py_generated import Model

from mobile_export.benchmark import dot_product, random_inputs
from mobile_export.litert import INPUT_NAMES, SIGNATURE, Runner, read

log = logging.getLogger(__name__)
THREADS = (1, 2, 4)
ANSWER_SECONDS, RUN_SECONDS = 30, 600  # adb's, and one run's, which ends itself after 150 s twice
PUSH_BYTES_PER_SECOND = 500_000  # of the slowest cable
MACHINES = {3: "x86", 40: "armeabi-v7a", 62: "x86_64", 183: "arm64-v8a"}  # e_machine of ELF: ABI
WAYS_OUT = {  # pattern in what adb says: what helps
    "unauthorized": "Unlock the phone, and allow debugging in the dialog that it shows.",
    "no permissions": "Let your user reach USB devices (on Linux: udev rules, group plugdev).",
    "No space left": "Free some space on the phone.",
    "Killed|Out of memory": "Android stopped it: close apps, or take a smaller file.",
    "not executable|Exec format|CANNOT LINK|inaccessible|No such file": "Take the benchmark_model that is built for "
    "Android and the phone's ABI.",
    "Unconsumed cmdline flags|BENCHMARK RESULTS": "Take the interpreter's benchmark_model, which reads inputs from "
    "files (mobile_export/README.md).",
    "": "Unplug the phone, plug it in, unlock it, and try again.",
}
TIMINGS = (
    r"Inference timings in us: Init: (\S+), First inference: (\S+), .* Inference \(avg\): (\S+)"
)
COUNT = r"count=(\d+)(?:.* median=(\d+) p95=(\d+))?"
MEMORY = r"emory footprint .*\(MB\): init=\S+ overall=(\S+)"


def adb(*command, serial=None, seconds=ANSWER_SECONDS):
    """(exit status, what adb and the phone printed). ValueError if adb is missing, or hangs."""
    words = ["adb", *(("-s", serial) if serial else ()), *map(str, command)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        done = subprocess.run(words, timeout=seconds, **pipes)
    except FileNotFoundError as error:
        raise ValueError(
            "A phone is reached by Android's `adb`. Received: none on PATH. Install the platform tools "
            "(developer.android.com/tools/releases/platform-tools; Debian: apt install adb)."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            f"adb must answer within {seconds:.0f} s. Received: nothing after `{shlex.join(words):.80}`. Plug the "
            "phone in again, or restart adb: adb kill-server."
        ) from error
    return done.returncode, done.stdout.decode("utf-8", "replace")


def phones(serials=()):
    """The serials of the phones to measure: those named, or the only one. ValueError unless all are ready."""
    status, text = adb("devices", "-l")
    there = dict(re.findall(r"^(\S+)\s+(no permissions|\S+)", text.partition("attached")[2], re.M))
    words = ", ".join(f"{serial} ({state})" for serial, state in there.items())
    if not there:
        raise ValueError(
            f"A phone must be attached. Received: none from `adb devices` ({_last(text)}). Plug it in, and switch "
            "on USB debugging in its developer options."
        )
    if not serials and len(there) > 1:
        raise ValueError(
            f"Of several phones those to measure must be named. Received: {words}. Name each with `--serial`."
        )
    for serial in serials or there:
        if (state := there.get(serial, "not attached")) != "device":
            raise ValueError(
                f"A phone must be ready. Received: {serial}, {state}; attached: {words}. {_help(state)}"
            )
    return [*dict.fromkeys(serials or there)]


def abi_of(tool):
    """The ABI of a `benchmark_model`, by its ELF header. ValueError if it is no program of Android's kinds."""
    start = b"" if os.path.isdir(tool) else Path(tool).read_bytes()[:20]
    abi = MACHINES.get(int.from_bytes(start[18:], "little"))
    if start[:4] != b"\x7fELF" or not abi:
        raise ValueError(
            f"`--benchmark-model` must be LiteRT's program for Android. Received: {tool}, which is none (an .apk "
            "will not do). Where it is: mobile_export/README.md."
        )
    return abi


def benchmark_on_phones(paths, tool, serials, runs=50):
    """Times .tflite files on phones with 1, 2 and 4 threads, on the inputs that `benchmark.benchmark` times here.

    Args:
        tool: path of `benchmark_model`. serials: what `phones` gives.
        runs: forward passes that count, at least: the tool goes on until a second is over.
    Returns:
        list of dicts, one per phone, file and number of threads: `path`, `serial`, `device`, `threads`,
        `sequence_length`, `runs`; in ms `latency_ms_mean`, `latency_ms_p50`, `latency_ms_p95` (older tools tell
        the mean alone), `first_ms`, `init_ms`; `memory_mb`; `before` and `after` (`state`) and `throttled`.
        Without figures: `path`, `serial` and `failed`, the reason.
    """
    abi, rows = abi_of(tool), []
    for serial in serials:
        try:
            _on_phone(paths, tool, abi, serial, runs, rows)
        except ValueError as error:  # the other phones are measured all the same
            rows.append({"path": None, "serial": serial, "failed": f"{serial}: {error}"})
    return rows


def _on_phone(paths, tool, abi, serial, runs, rows):
    status, text = adb("shell", "getprop", serial=serial)
    if status:
        raise ValueError(f"A phone must answer. Received: {_last(text)}. {_help(text)}")
    told = dict(re.findall(r"\[(.+?)\]: \[(.*)\]", text))
    name = " ".join(told.get(f"ro.product.{key}", "?") for key in ("manufacturer", "model"))
    abis = told.get("ro.product.cpu.abilist", "?").split(",")
    if abi not in abis:
        raise ValueError(
            f"benchmark_model must be built for the phone's processor. Received: {abi}; {name} takes "
            f"{', '.join(abis)}. Take the one for {abis[0]}."
        )
    cpu = dot_product(adb("shell", "cat /proc/cpuinfo", serial=serial)[1])
    device = f"{name}, Android {told.get('ro.build.version.release', '?')}, {abis[0]}, {cpu}"
    place = f"/data/local/tmp/keras_compress.{os.getpid()}"
    try:
        adb("shell", f"mkdir -p {place}", serial=serial)
        _push(serial, [tool], f"{place}/benchmark_model")
        adb("shell", f"chmod 755 {place}/benchmark_model", serial=serial)
        for path in paths:
            runner, before = Runner(path), state(serial)
            _push(serial, [path], f"{place}/model.tflite")
            with tempfile.TemporaryDirectory() as folder:
                for key, ids in random_inputs(runner).items():
                    Path(folder, key).write_bytes(ids.astype("<i4").tobytes())
                _push(serial, [Path(folder, key) for key in INPUT_NAMES], f"{place}/")
            for threads in THREADS:
                command = command_of(place, path, runner.sequence_length, threads, runs)
                status, text = adb("shell", command, serial=serial, seconds=RUN_SECONDS)
                row = {"path": str(path), "serial": serial, "device": device, "threads": threads}
                row |= {"sequence_length": runner.sequence_length, "before": before}
                row["after"] = before = state(serial)
                hot = [row[when]["thermal_status"] for when in ("before", "after")]
                row["throttled"] = None if None in hot else max(hot) > 0
                rows.append(row | (figures(text) or {"failed": _failed(row, status, text)}))
    finally:
        _remove(serial, place)


def _push(serial, paths, to):
    seconds = ANSWER_SECONDS + sum(map(os.path.getsize, paths)) / PUSH_BYTES_PER_SECOND
    full = [Path(path).resolve() for path in paths]  # none begins with "-"
    status, text = adb("push", *full, to, serial=serial, seconds=seconds)
    if status or "failed to copy" in text:
        raise ValueError(f"A phone must take {paths[0]}. Received: {_last(text)}. {_help(text)}")


def _remove(serial, place):
    try:
        status, text = adb("shell", f"rm -rf {place}", serial=serial)
    except ValueError as error:
        status, text = 1, str(error)
    if status:
        log.warning("warning: %s stays on the phone %s: %s", place, serial, _last(text))


def command_of(place, path, length, threads, runs):
    """The line for the phone's shell. The tool takes inputs in the order of the file's tensors."""
    model = Model.GetRootAsModel(read(path)[1])
    signatures = map(model.SignatureDefs, range(model.SignatureDefsLength()))
    signature = next(one for one in signatures if one.SignatureKey() == SIGNATURE.encode())
    tensors = map(signature.Inputs, range(signature.InputsLength()))
    names = {tensor.TensorIndex(): tensor.Name().decode() for tensor in tensors}
    names = [names[i] for i in model.Subgraphs(signature.SubgraphIndex()).InputsAsNumpy()]
    flags = {
        "graph": f"{place}/model.tflite",
        "signature_to_run_for": SIGNATURE,
        "num_threads": threads,
        "num_runs": runs,
        "warmup_runs": 10,
        "input_layer": ",".join(names),
        "input_layer_shape": ":".join([f"1,{length}"] * len(names)),
        "input_layer_value_files": ",".join(f"{name}:{place}/{name}" for name in names),
    }
    return shlex.join([f"{place}/benchmark_model", *(f"--{k}={v}" for k, v in flags.items())])


def figures(text):
    """The figures in a log of `benchmark_model`, in ms and MB; None if it ended without them, or ignored the inputs."""
    timings, memory = re.search(TIMINGS, text), re.search(MEMORY, text)
    if not timings or re.search("Unconsumed.*input_layer_value_files", text):
        return None
    init, first, mean = (float(us) / 1e3 for us in timings.groups())
    count, *percentiles = re.findall(COUNT, text)[-1]  # before that, those of the warm-up
    median, p95 = (float(us) / 1e3 if us else None for us in percentiles)
    times = {"latency_ms_mean": mean, "latency_ms_p50": median, "latency_ms_p95": p95}
    more = {"first_ms": first, "init_ms": init, "memory_mb": float(memory[1]) if memory else None}
    return {"runs": int(count), **times, **more}


def state(serial):
    """`battery_percent`, `battery_celsius`, `thermal_status` of a phone; None for what it does not tell.

    The status is PowerManager's, of Android 10 and later: 0 none, 1 light, 2 moderate throttling, and so on.
    """
    _, text = adb("shell", "dumpsys battery; dumpsys thermalservice", serial=serial)
    keys = ("level", "temperature", "Thermal Status")
    found = (re.search(rf"^\s*{key}: (-?\d+)", text, re.M) for key in keys)
    percent, tenths, status = (int(one[1]) if one else None for one in found)
    celsius = tenths and tenths / 10
    return {"battery_percent": percent, "battery_celsius": celsius, "thermal_status": status}


def in_words(rows):
    """Lines about the figures of `benchmark_on_phones`, with `host_ms`, the time on this machine; then one on each phone."""
    for serial in dict.fromkeys(row["serial"] for row in rows):
        measured = [row for row in rows if row["serial"] == serial]
        for row in measured:
            form = "{path} on {serial}, {threads} thread(s): {latency_ms_mean:.2f} ms on average"
            if row["latency_ms_p50"]:
                form += " (median {latency_ms_p50:.2f}, 95th percentile {latency_ms_p95:.2f})"
            form += ", {times:.2f} x this machine; first {first_ms:.2f} ms, start {init_ms:.2f} ms"
            form += ", {memory_mb:.1f} MB" if row["memory_mb"] else ""
            form += "; THROTTLED: let it cool, and measure again" if row["throttled"] else ""
            yield form.format(**row, times=row["latency_ms_mean"] / row["host_ms"])
        form = "{serial}: {0}; °C {1[battery_celsius]} to {2[battery_celsius]}, thermal status "
        form += "{1[thermal_status]} to {2[thermal_status]}, battery {2[battery_percent]} %"
        before, after = measured[0]["before"], measured[-1]["after"]
        yield form.format(measured[0]["device"], before, after, serial=serial)


def _failed(row, status, text):
    rule = "{path}, {threads} threads: benchmark_model must end with its timings. ".format(**row)
    return f"{rule}Received: exit status {status}, {_last(text)}. {_help(text)}"


def _help(text):
    return next(way for pattern, way in WAYS_OUT.items() if re.search(pattern, text))


def _last(text):
    return " | ".join(text.split("\n")[-4:]).strip(" |\r") or "no output"
