"""The house: budgets of lines and tokens, the direction of imports, and a quick start without TensorFlow."""

import io
import json
import resource
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from tests.golden.record import CASES

ROOT = Path(__file__).parents[1]
# Lines after the formatter, docstrings included, and tokens of both parts together: what there is, which a new
# method raises by its own size. Why they are not the first aims: CONTRIBUTING.md.
LIBRARY = (
    "method.py backend.py files.py __init__.py bert training pretraining replacement distillation "
    "factorization quantization pruning"
).split()
BUDGETS = {"library": 11_340, "workshop": 8_230}
TOKENS = 121_300


def files():
    """{"library": [paths], "workshop": [paths]} of all code that is no test and no lesson."""
    package = ROOT / "keras_compress"
    every = [*package.rglob("*.py"), *(ROOT / "mobile_export").glob("*.py")]
    library = [
        p for p in every if package in p.parents and p.relative_to(package).parts[0] in LIBRARY
    ]
    return {"library": library, "workshop": [p for p in every if p not in library]}


def lines_of(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def tokens_of(path):
    code = io.StringIO(path.read_text(encoding="utf-8"))
    kinds = (tokenize.NAME, tokenize.OP, tokenize.NUMBER)
    return sum(token.type in kinds for token in tokenize.generate_tokens(code.readline))


@pytest.mark.parametrize("room", BUDGETS)
def test_lines_stay_within_the_budget(room):
    count = sum(map(lines_of, files()[room]))
    assert count <= BUDGETS[room], (
        f"The {room} may have {BUDGETS[room]:,} lines. Received: {count:,}. Delete, merge, or, for a "
        f"new method, raise BUDGETS by its size. {newest()}"
    )


def test_tokens_stay_within_the_budget():
    count = sum(tokens_of(path) for room in files().values() for path in room)
    assert count <= TOKENS, (
        f"All code may have {TOKENS:,} tokens. Received: {count:,}. Delete, merge, or, for a new "
        f"method, raise TOKENS by its size. {newest()}"
    )


def newest():
    """The size of the files that changed last."""
    paths = sorted(sum(files().values(), []), key=lambda path: path.stat().st_mtime)[-3:]
    sizes = [f"{p.name} has {lines_of(p)} lines, {tokens_of(p)} tokens" for p in paths]
    return f"Changed last: {'; '.join(sizes)}."


def test_every_method_has_a_golden_case_that_is_recorded():
    recorded = json.loads((ROOT / "tests/golden/weights.json").read_text(encoding="utf-8"))["cases"]
    missing = {case["name"] for case in CASES} - {*recorded}
    assert not missing, (
        f"{missing}: run python -m tests.golden.record weights --only NAME; a method that needs other settings than "
        "num_layers=1 has a case in tests/golden/record.py."
    )


def test_the_linter_finds_nothing_and_imports_point_one_way():
    bin_folder = Path(sys.executable).parent
    for command in (["ruff", "format", "--check"], ["ruff", "check"], ["lint-imports"]):
        tool = [bin_folder / command[0], *command[1:]]
        done = subprocess.run(tool, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("what", ["import keras_compress", "--help"])
def test_a_quick_start_without_tensorflow(what):
    if what == "--help":
        code = "from keras_compress.cli import parser; parser().format_help()"
    else:
        code = what
    code += "; import sys; sys.exit('tensorflow' in sys.modules)"
    seconds = []
    for _ in range(3):  # of the processor: the machine may be busy
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5
