"""What `adb` and a phone behind it answer, in recorded forms: a program that tests put on PATH under the name adb.

FAKE_ADB holds JSON: `devices` (lines of `adb devices -l`), `fail` (what goes wrong), `files` (the folder that stands
for the phone's storage), `log` (where each command is noted). The shell understands as little as is asked of it.
"""

import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

# Forms: tflite/tools/benchmark/benchmark_model.cc of LiteRT; the older one of tensorflow#42507.
LOG = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Num threads: [{threads}]
INFO: Using signature: serving_default
INFO: Initialized session in 5.579ms.
INFO: Running benchmark for at least 10 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=21 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930 p5=32825 median=33700 p95=49060

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count={runs} first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450 p5=32700 median=33100 p95=33900

INFO: Inference timings in us: Init: 5579, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=6.36328 overall=12.8672
"""
OLD_LOG = """STARTING!
count=1 curr=1357602

count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565

Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 1.3576e+06, Inference (avg): 1.24027e+06
Peak memory footprint (MB): init=0 overall=109.832
"""
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  level: 84
  scale: 100
  voltage: 4063
  temperature: 326
  technology: Li-ion
"""
THERMAL = """IsStatusOverride: false
Thermal Status: {status}
Cached temperatures:
\tTemperature{{mValue=25.6, mType=0, mName=AP, mStatus=0}}
"""
GETPROP = """[ro.build.version.release]: [14]
[ro.product.cpu.abilist]: [arm64-v8a,armeabi-v7a,armeabi]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 8]
"""
FEATURES = "Features\t: fp asimd aes asimdhp asimddp\n"


def main(words, set_up):
    fail, serial = set_up.get("fail"), None
    with open(set_up["log"], "a", encoding="utf-8") as log:
        log.write(json.dumps(words) + "\n")
    if words[0] == "-s":
        serial, words = words[1], words[2:]
    if words[0] == "devices":
        print("* daemon not running; starting now at tcp:5037\n* daemon started successfully")
        print("List of devices attached", *set_up["devices"], "", sep="\n")
        return 0
    if fail == "hangs":
        time.sleep(60)
    if fail == "gone" or not any(line.startswith(f"{serial} ") for line in set_up["devices"]):
        print(f"error: device '{serial}' not found", file=sys.stderr)
        return 1
    files = Path(set_up["files"], serial)
    if words[0] == "push":
        *sources, to = words[1:]
        if fail == "full" and to.endswith(".tflite"):
            print(
                f"adb: error: failed to copy '{sources[0]}' to '{to}': remote No space left on device"
            )
            print(f"{sources[0]}: 0 files pushed. 5.2 MB/s (99995728 bytes in 18.348s)")
            return 1
        for source in sources:
            shutil.copy(source, f"{files}{to}")
        return 0
    status = 0
    for line in " ".join(words[1:]).split(";"):  # adb joins them, the phone's shell parses
        status = shell(shlex.split(line), files, fail, set_up)
    return status


def shell(words, files, fail, set_up):
    path = f"{files}{words[-1]}"
    match words:
        case ["getprop"]:
            print(GETPROP, end="")
        case ["cat", "/proc/cpuinfo"]:
            print(FEATURES, end="")
        case ["dumpsys", "battery"]:
            print(BATTERY, end="")
        case ["dumpsys", "thermalservice"]:
            runs = Path(set_up["log"]).read_text(encoding="utf-8").count("num_runs")
            if fail == "old":
                print("Can't find service: thermalservice")
            else:
                print(THERMAL.format(status=2 if fail == "hot" and runs > 1 else 0), end="")
        case ["mkdir", "-p", _]:
            os.makedirs(path)
        case ["chmod", "755", _]:
            os.chmod(path, 0o755)
        case ["rm", "-rf", _]:
            shutil.rmtree(path)
        case [tool, *flags] if tool.endswith("/benchmark_model"):
            return benchmark(files, tool, dict(flag[2:].split("=", 1) for flag in flags), fail)
        case _:
            raise SystemExit(f"/system/bin/sh: {words}: inaccessible or not found")
    return 0


def benchmark(files, tool, flags, fail):
    assert os.access(f"{files}{tool}", os.X_OK) and os.path.getsize(f"{files}{flags['graph']}")
    names, shapes = flags["input_layer"].split(","), flags["input_layer_shape"].split(":")
    values = dict(part.split(":") for part in flags["input_layer_value_files"].split(","))
    for name, shape in zip(names, shapes, strict=True):
        # As LiteRT's LoadInputTensorData: the bytes of an int32 tensor, no more and no less.
        assert os.path.getsize(f"{files}{values[name]}") == 4 * int(shape.removeprefix("1,"))
    if fail == "killed" and flags["num_threads"] == "2":
        print("INFO: STARTING!\nKilled")
        return 137
    if fail == "linux":
        print(f"/system/bin/sh: {tool}: inaccessible or not found", file=sys.stderr)
        return 127
    if fail == "other tool":
        print("WARN: Unconsumed cmdline flags: --input_layer=a --input_layer_value_files=a:b")
    text = OLD_LOG if fail == "old" else LOG
    print(text.format(threads=flags["num_threads"], runs=flags["num_runs"]).replace("\n", "\r\n"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], json.loads(os.environ["FAKE_ADB"])))
