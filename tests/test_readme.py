"""The pages say the same in both languages, and what they say can be typed.

`python -m tests.test_readme` writes the table of methods into both READMEs, after a method has come.
"""

import re
import shlex
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import keras_compress as kc
from keras_compress.cli import parser
from keras_compress.experiment.overview import point
from tests.bert import tiny
from tests.support import TRAINING, data

ROOT = Path(__file__).parent.parent
LIMITS = {"README": 112, "keras_compress/README": 220, "notebooks/README": 100}
PAIRS = [*LIMITS, "mobile_export/README", "mobile_export/PLATFORMS", "notebooks/COURSE"]
PAGES = [f"{pair}{end}" for pair in PAIRS for end in (".md", ".zh.md")]
PAGES += ["CONTRIBUTING.md", "data/README.md", "tests/golden/README.md"]
PAGES += sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("data/results/**/README*.md"))
TABLE = re.compile(r"(?<=<!-- methods -->\n).*(?=<!-- /methods -->)", re.DOTALL)
SET_UP = "python3 -m venv .venv && .venv/bin/pip install --no-deps -r requirements.txt && .venv/bin/python -m "


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def methods_table():
    """The table of methods, as the code lists them."""
    rows = [f"| {family} | `{name}` | {about} |" for name, (family, about) in kc.methods().items()]
    return "\n".join(["| family | method | what it does, paper |", "|---|---|---|", *rows]) + "\n"


def blocks(text):
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)


def commands(text):
    """What follows `-m keras_compress`, in fenced blocks and in the text."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    lines = [line for _, code in blocks(text) for line in code.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", prose)
    return [
        re.split(r"-m keras_compress\b(?!\.)", line, maxsplit=1)[1].strip()
        for line in lines
        if re.search(r"-m keras_compress\b(?!\.)", line) and not line.startswith("#")
    ]


@pytest.mark.parametrize("pair", PAIRS)
def test_both_languages_have_the_same_headings_commands_and_intervals(pair):
    english, chinese = (read(f"{pair}{end}") for end in (".md", ".zh.md"))
    assert blocks(english) == blocks(chinese)
    prose = [re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S) for text in (english, chinese)]
    levels, intervals, table_rows = (
        [re.findall(pattern, text, re.M) for text in prose]
        for pattern in (r"^#+(?= )", r"\[[+-]\d+\.\d, [+-]\d+\.\d\]", r"^\|(?=.*\|$)")
    )
    assert levels[0] == levels[1] and table_rows[0] == table_rows[1]
    assert Counter(intervals[0]) == Counter(intervals[1])


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere_and_commands_parse(page):
    text = read(page)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert not [link for link in links if not ((ROOT / page).parent / link).exists()]
    for arguments in commands(text):
        known = shlex.split(arguments.partition(" #")[0])
        parser().parse_args(known)


def test_pages_stay_short():
    lengths = {f"{pair}{end}": limit for pair, limit in LIMITS.items() for end in (".md", ".zh.md")}
    for page, limit in {**lengths, "CONTRIBUTING.md": 120}.items():
        written = TABLE.sub("", read(page))  # the table of methods is as long as there are methods
        assert len(written.splitlines()) <= limit, page


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_the_two_commands_are_verbatim_and_the_table_is_what_the_code_lists(page):
    text = read(page)
    assert {SET_UP + "keras_compress run", SET_UP + "pytest"} <= {*text.splitlines()}
    assert ".venv/bin/python -m pytest" in read(".ci/run").splitlines()
    assert TABLE.search(text)[0] == methods_table(), "write it: python -m tests.test_readme"


def test_the_picture_shows_the_figures_of_the_pages():
    drawn = tomllib.loads(read("data/results/overview.toml"))["points"]
    for cell in [cell for row in drawn for cell in row["cells"]]:
        study, *name = cell.split("/")
        row = re.escape(f"| sst2 | {':'.join(name)} | ") + r"(.+?) ± (.+?) \|"
        accuracy, se = re.search(row, read(f"data/results/{study}/README.md")).groups()
        figures = point(cell)
        assert (
            f"{figures['accuracy']:.1f} {figures['half_interval'] / 1.96:.1f}" == f"{accuracy} {se}"
        )


def test_requirements_come_from_the_line_in_pyproject():
    (line,) = re.findall(r"^#   (uv pip compile .+)$", read("pyproject.toml"), re.M)
    assert line in read("requirements.txt")


@pytest.mark.usefixtures("eager_here")
def test_the_example_runs(tmp_path, monkeypatch):
    """README's code as it stands, with a tiny model, tiny data and short training in place of the named ones."""
    (code,) = [code for language, code in blocks(read("README.md")) if language == "python"]
    assert len([line for line in code.splitlines() if line]) == 8
    head = {"num_layers": 3, "max_position_embeddings": 64, "pooling": "cls"}
    compress = kc.compress
    monkeypatch.setattr(kc, "load_data", lambda name: data(), raising=False)
    monkeypatch.setattr(kc, "load", lambda *a, **k: tiny.model(**head), raising=False)
    short = {"training": TRAINING.replace(epochs=1, evaluations=0)}
    monkeypatch.setattr(kc, "compress", lambda *a, **k: compress(*a, **k, **short), raising=False)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert {path.name for path in (tmp_path / "phone").iterdir()} >= {
        "float32.tflite",
        "int8.tflite",
    }
    assert (tmp_path / "small" / "config.json").exists()


def test_the_contributors_example_keeps_its_promises(tmp_path, monkeypatch):
    """The worked method and its test run as they stand in CONTRIBUTING.md."""
    import keras_compress.distillation as family

    (_, code), (_, test) = [
        block for block in blocks(read("CONTRIBUTING.md")) if block[0] == "python"
    ]
    (tmp_path / "confidence_penalty.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(family, "__path__", [*family.__path__, str(tmp_path)])
    names = {}
    exec(test, names)
    names["test_losses_by_hand"](monkeypatch)
    start = tiny.model(dropout=0.0)
    small = kc.compress("confidence_penalty", start, data(), num_layers=1, training=TRAINING)
    assert small.history[-1]["beta"] == 0.1 and small.history[-1]["layers"] == [0]
    with pytest.raises(ValueError, match="needs one name for a text or word. Received: regression"):
        kc.compress("confidence_penalty", tiny.model("regression"), data("regression"))


if __name__ == "__main__":
    for page in ("README.md", "README.zh.md"):
        text = TABLE.sub(
            lambda _: methods_table(),
            read(page),
        )
        (ROOT / page).write_text(text, encoding="utf-8")
