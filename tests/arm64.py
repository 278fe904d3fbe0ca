"""Exported files on emulated arm64 processors, the phones' kind: the same answers as on this machine?

    python -m tests.arm64 [--folder DIR] [FILE.tflite ...]

Without files a tiny model is exported in all formats. Not part of the test run: it needs the network, and of the system
`apt-get`, `dpkg-deb` and Debian's keyring. Nothing is installed: DIR (400 MB, filled once) gets qemu's user-mode
emulator and a Python for arm64 from Debian 13, and numpy and LiteRT for arm64 as requirements.txt locks them. Three
processors, because each takes other int8 kernels: without dot product, with it, and with matrix multiplication.

Printed per processor and file: the largest probability difference to this machine's LiteRT on 20 texts, and how often
both choose the same label; exit status 1 beyond 1e-5 for float files, 2e-2 for others. Where parity.json stands beside a
file (`export --vectors`), its texts, outputs and tolerance are taken. For correctness only: an
emulator's time says nothing about a phone's. qemu 7.2 (Debian 12) will not do: on its default processor int8 files
are wrong by .57, and LiteRT 2.3 crashes.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from keras_compress.files import read_json, sha256_of
from mobile_export.contract import VECTORS
from mobile_export.litert import Runner

SOURCE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main\n"
PACKAGES = (
    "python3.13-minimal libpython3.13-minimal libpython3.13-stdlib libc6 libstdc++6 libgcc-s1 zlib1g libexpat1 "
    "libffi8"
).split()
PROCESSORS = ("cortex-a57", "cortex-a76", "cortex-a710")
NUM_TEXTS = 20
ROOT = Path(__file__).resolve().parents[1]
THERE = """import json, sys
from tests.arm64 import probabilities
print(json.dumps([probabilities(path).tolist() for path in sys.argv[1:]]))"""


def fetch(folder):
    """Fills a folder: `root/` with the emulator and arm64 packages of Debian, `site/` with the wheels."""
    apt = folder / "apt"  # lists and cache of its own: the system's stay as they are
    for name in ("lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(SOURCE)
    here = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
    settings = {
        "Dir::State": apt,
        "Dir::State::Lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "APT::Architectures": f"{here},arm64",
    }
    apt_get = [
        "apt-get",
        "-qq",
        *(word for name, value in settings.items() for word in ("-o", f"{name}={value}")),
    ]
    subprocess.run([*apt_get, "update"], check=True)
    subprocess.run(
        [*apt_get, "download", f"qemu-user:{here}", *(f"{name}:arm64" for name in PACKAGES)],
        check=True,
        cwd=apt,
    )
    for package in apt.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
    if not (folder / "root/lib").is_symlink():
        (folder / "root/lib").symlink_to("usr/lib")
    tags = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
    locked = re.findall(
        r"^(?:numpy|ai-edge-litert)==.*(?:\n    --hash.*)+",
        (ROOT / "requirements.txt").read_text(),
        re.M,
    )
    (folder / "requirements.txt").write_text("\n".join(locked))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--target",
            folder / "site",
            "--python-version",
            "3.13",
            *(f"--platform={tag}" for tag in tags),
            "--require-hashes",
            "-r",
            folder / "requirements.txt",
        ],
        check=True,
    )
    (folder / "complete").touch()


def exported(folder):
    """Files of a tiny model, in all formats of TFLite."""
    from mobile_export.convert import FORMATS, ONNX_FORMATS, export
    from tests.mobile_export.conftest import LENGTH, tiny

    return [
        row["path"]
        for row in export(
            tiny(),
            folder,
            [name for name in FORMATS if name not in ONNX_FORMATS],
            sequence_length=LENGTH,
            allow_drift=True,
        )
    ]


def vectors_of(path):
    """(encodings, outputs, tolerance) of a file, as parity.json beside it has them; None without one."""
    path = Path(path)
    if not (path.parent / VECTORS).is_file():
        return None
    told = read_json(path.parent / VECTORS)
    row = told["files"].get(path.name, {})
    if row.get("sha256") != sha256_of(path):
        raise ValueError(
            f"{path.parent / VECTORS}: must hold the outputs of {path.name} as it is. Received: those of other files. "
            "Export them again with `--vectors`, or move it away."
        )
    encodings = [SimpleNamespace(**each) for each in told["inputs"][str(row["max_length"])]]
    return encodings, [*map(np.float32, row["outputs"])], row["tolerance"]


def probabilities(path):
    """Outputs of a file: (texts or tokens, classes), for the texts of parity.json where it stands beside it, else for 20
    of random words and lengths, always the same ones."""
    runner, random = Runner(path), np.random.default_rng(0)
    if told := vectors_of(path):
        return np.vstack(runner.forward(told[0]))
    lengths = random.integers(1, runner.sequence_length + 1, NUM_TEXTS)
    return np.vstack(
        runner.forward(
            [
                SimpleNamespace(
                    ids=random.integers(0, runner.vocab_size, n).tolist(), type_ids=[0] * n
                )
                for n in lengths
            ]
        )
    )


def compare(files, folder):
    """Prints the figures of each file on each processor; returns the exit status."""
    root, paths = folder / "root", os.pathsep.join([str(ROOT), str(folder / "site")])
    told = [vectors_of(path) for path in files]
    here = [np.vstack(x[1]) if x else probabilities(path) for path, x in zip(files, told)]
    failed = False
    for processor in PROCESSORS:
        emulated = [
            root / "usr/bin/qemu-aarch64",
            "-cpu",
            processor,
            "-L",
            root,
            root / "usr/bin/python3.13",
        ]
        result = subprocess.run(
            [*emulated, "-c", THERE, *files],
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
        )
        there = map(np.array, json.loads(result.stdout))
        for path, ours, theirs, vectors in zip(files, here, there, told):
            difference, agreement = (
                np.abs(theirs - ours).max(),
                np.mean(theirs.argmax(-1) == ours.argmax(-1)),
            )
            bound = 1e-5 if Path(path).stem.startswith("float") else 2e-2
            bound = vectors[2] if vectors else bound
            failed |= not difference <= bound
            print(
                f"{processor} {Path(path).name}: largest |dp| {difference:.2g} (bound {bound:g}), same label "
                f"{100 * agreement:.0f} % of {len(ours)}",
                flush=True,
            )
    return int(failed)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m tests.arm64", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE.tflite", help="exported files (default: a tiny model's)"
    )
    parser.add_argument(
        "--folder", default=ROOT / "data/cache/arm64", type=Path, help="(default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    for path in options.files:
        Runner(path)  # a wrong file is told before 400 MB come
    if not (folder / "complete").is_file():
        fetch(folder)
    with tempfile.TemporaryDirectory() as place:
        return compare(options.files or exported(place), folder)


if __name__ == "__main__":
    sys.exit(main())
