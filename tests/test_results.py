"""Pages of data/results: the answer first, the table that the command prints, the same figures in both languages.

`python -m tests.test_results` writes the tables into the pages, after cells have changed.
"""

import contextlib
import io
import re
from collections import Counter
from pathlib import Path

import pytest

from keras_compress.cli import main

RESULTS = Path(__file__).parent.parent / "data" / "results"
STUDIES = sorted(path.name for path in RESULTS.iterdir() if path.is_dir())
NAMES = ("README.md", "README.zh.md")
TABLE = re.compile(r"(?<=<!-- table -->\n).*(?=<!-- /table -->)", re.DOTALL)
INTERVAL = r"\[[+-]\d+\.\d, [+-]\d+\.\d\]|interval|区间"


def read(folder, name):
    return (folder / name).read_text(encoding="utf-8")


def printed(study):
    """What `table` prints, each sentence below the table as a paragraph of its own."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(["table", study]) == 0
    return re.sub(r"\n+(?!\|)", "\n\n", output.getvalue().strip()) + "\n"


def figures(text):
    """Each figure with a decimal point and its sign, and how often it stands outside the table."""
    return Counter(re.findall(r"(?<![\d.])[+-]?\d+\.\d+", TABLE.sub("", text)))


@pytest.mark.parametrize("study", STUDIES)
def test_tables_are_what_the_command_prints(study):
    table = printed(study)
    assert all(TABLE.search(read(RESULTS / study, name)).group() == table for name in NAMES)


@pytest.mark.parametrize("folder", ["", *STUDIES])
def test_both_languages_have_the_same_figures_headings_and_commands(folder):
    english, chinese = (read(RESULTS / folder, name) for name in NAMES)
    assert figures(english) == figures(chinese)
    for pattern in (r"^#+ ", r"^```\n.*?^```$", r"^\|[-:|]+\|$"):
        flags = re.MULTILINE | re.DOTALL
        assert re.findall(pattern, english, flags) == re.findall(pattern, chinese, flags)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("study", STUDIES)
def test_the_answer_stands_first_and_the_page_is_short(study, name):
    text = read(RESULTS / study, name)
    lines = TABLE.sub("", text).splitlines()
    answer = "\n".join(lines[1:6])
    assert lines[0].startswith("# ") and "**" in answer and re.search(INTERVAL, answer)
    assert len(lines) <= 80
    reading = text.split("\n## ")[1].strip().splitlines()[2:]
    assert len(reading) <= 12 and all(line.startswith("- ") for line in reading)


@pytest.mark.parametrize("name", NAMES)
def test_the_index_is_short_and_names_every_study(name):
    text = read(RESULTS, name)
    assert len(text.splitlines()) <= 80
    assert all(f"]({study}/{name})" in text for study in STUDIES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folder", ["", *STUDIES])
def test_links_lead_somewhere(folder, name):
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", read(RESULTS / folder, name))
    assert links and all((RESULTS / folder / "".join(link)).exists() for link in links)


if __name__ == "__main__":
    for study in STUDIES:
        table = printed(study)
        for name in NAMES:
            before, after = re.split(TABLE, read(RESULTS / study, name))
            text = before + table + after
            (RESULTS / study / name).write_text(text, encoding="utf-8")
