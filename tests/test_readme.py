"""The two READMEs say the same, and what they say can be typed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from keras_compress.cli import parser
from keras_compress.experiment.report import report_of, table_text
from keras_compress.method import methods

ROOT = Path(__file__).parent.parent
NAMES = ("README.md", "README.zh.md")
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
SET_UP = "python3 -m venv .venv && .venv/bin/pip install --no-deps -r requirements.txt && .venv/bin/python -m "


def code_lines(text):
    """Lines of fenced blocks, without comments."""
    return [
        line
        for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if not line.startswith("#")
    ]


def commands(text):
    """All that follows `-m keras_compress`, in fenced blocks and in the text."""
    spans = code_lines(text) + re.findall(
        r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    )
    return [
        span.split("-m keras_compress", 1)[1].strip()
        for span in spans
        if "-m keras_compress" in span
    ]


def sections(text):
    """[(heading's level, its text)]; the first is what stands before the second heading."""
    parts = re.split(
        r"^(#+) .*$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), flags=re.MULTILINE
    )[1:]
    return list(zip(map(len, parts[::2]), parts[1::2]))


def test_same_headings_commands_and_numbers():
    english, chinese = (sections(TEXTS[name]) for name in NAMES)
    assert [level for level, _ in english] == [level for level, _ in chinese]
    assert code_lines(TEXTS["README.md"]) == code_lines(TEXTS["README.zh.md"])
    for (_, ours), (_, theirs) in zip(english, chinese):
        for pattern in (
            r"\d+(?:[.,:]\d+)*",
            r"`[^`\n]+`",
            r"^<!-- .* -->$",
        ):  # numbers, code, markers
            ours_found, theirs_found = (
                sorted(re.findall(pattern, text, re.MULTILINE)) for text in (ours, theirs)
            )
            assert ours_found == theirs_found


@pytest.mark.parametrize("name", NAMES)
def test_set_up_lines_are_verbatim_and_ci_runs_the_second(name):
    lines = TEXTS[name].splitlines()
    assert SET_UP + "keras_compress run" in lines and SET_UP + "pytest" in lines
    assert SET_UP + "pytest" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_every_command_parses():
    found = commands(TEXTS["README.md"])
    for arguments in found:
        parser().parse_args(shlex.split(arguments))
    assert {arguments.split()[0] for arguments in found} == {
        "run",
        "table",
        "train",
        "compress",
        "export",
        "evaluate",
        "benchmark",
        "predict",
        "data",
        "methods",
        "serve",
    }


def test_every_method_is_in_the_table_with_its_state():
    files = {f"{family}/{name}.py" for name, (family, _) in methods().items()}
    for name, done in (("README.md", "**done**"), ("README.zh.md", "**已完成**")):
        rows = re.findall(r"^\|.*\| `(\w+/\w+\.py)` \| (.+) \|$", TEXTS[name], re.MULTILINE)
        assert {file for file, state in rows if state == done} == files | {
            "mobile_export/convert.py",
            "mobile_export/to_onnx.py",
        }


def test_tables_of_studies_are_what_the_command_prints():
    blocks = re.findall(
        r"^<!-- results:([\w-]+) -->\n(.*?)^<!-- /results -->$", TEXTS["README.md"], re.M | re.S
    )
    assert blocks
    for study, block in blocks:
        table = table_text(report_of(study))
        assert {line for line in table.splitlines() if line} <= {*block.splitlines()}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#]+)\)", TEXTS[name])
    assert links and not [
        link for link in links if "://" not in link and not (ROOT / link).exists()
    ]


def test_requirements_come_from_the_line_that_the_readme_names():
    line = next(
        line for line in code_lines(TEXTS["README.md"]) if line.startswith("uv pip compile")
    )
    for name in ("requirements.txt", "pyproject.toml"):
        assert line in (ROOT / name).read_text(encoding="utf-8")


def test_imports_of_the_example_work_in_a_fresh_process_in_any_order():
    imports = [line for line in code_lines(TEXTS["README.md"]) if line.startswith("from ")]
    assert len(imports) == 6
    found = subprocess.run(
        [sys.executable, "-c", "\n".join(reversed(imports))],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr[-1000:]
