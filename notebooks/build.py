"""Builds the lessons: notebooks/NAME.ipynb from notebooks/source/NAME.py (jupytext's percent form).

    python -m notebooks.build [NAME ...]         executes in a fresh kernel; default: all lessons
    python -m notebooks.build --text [NAME ...]  only prose and exercises have changed: keeps the other outputs
    python -m notebooks.build --student DIR      a kit: lessons without outputs, the package, a check of one's own score
    python -m notebooks.build --nbgrader DIR     a course for nbgrader 0.9
    python -m notebooks.build --site DIR         static pages with an index
    python -m notebooks.build --check            exit 1 if a built notebook is not what its source gives

Built notebooks and kits hold neither solutions nor hidden checks; solutions/NAME.md has the answers.
A lesson NAME has a Chinese twin NAME.zh. Its source holds the prose alone, cell by cell; code and outputs come from NAME.
"""

import argparse
import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

from keras_compress.files import atomic_write

FOLDER = Path(__file__).resolve().parent
SOURCE = FOLDER / "source"
MAX_BYTES = 400_000
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
MACHINE_PATH = re.compile(
    r"(?<![\w.:/])/(home|Users|root|tmp|work|usr|opt|var|private|mnt)/|[A-Z]:\\\\?Users"
)
# A line break between Chinese characters would show as a space.
SOFT_BREAK = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef*])\n *(?=[\u3000-\u9fff\uff00-\uffef])")
STUB = 'raise NotImplementedError("your turn")'


def lessons():
    """Names of the lessons, without their twins."""
    return sorted(path.stem for path in SOURCE.glob("*.py") if not path.stem.endswith(".zh"))


def read_source(name):
    """The source of a notebook as a notebook without outputs; the same every time.

    A twin is the lesson with the k-th prose cell of the twin's source in place of its own k-th.

    Raises:
        ValueError: if a twin's source holds code, or another number of cells.
    """
    notebook = jupytext.read(SOURCE / f"{name.removesuffix('.zh')}.py", fmt="py:percent")
    if name.endswith(".zh"):
        prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
        chinese = jupytext.read(SOURCE / f"{name}.py", fmt="py:percent").cells
        kinds = [cell.cell_type for cell in chinese]
        if kinds != ["markdown"] * len(prose):
            raise ValueError(
                f"{name}: must hold the {len(prose)} prose cells of the lesson and no other. Received: "
                f"{kinds.count('markdown')} and {kinds.count('code')} code cells."
            )
        for cell, twin in zip(prose, chinese):
            cell.source = twin.source
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02}"
        cell.metadata = nbformat.from_dict(
            {key: cell.metadata[key] for key in ("nbgrader",) if key in cell.metadata}
        )
        if cell.cell_type == "markdown":
            cell.source = SOFT_BREAK.sub("", cell.source)
    return notebook


def code_of(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def student_version(notebook):
    """Strips solutions and hidden checks, in place.

    Raises:
        ValueError: if a marker has no partner.
    """
    for cell in notebook.cells:
        for kind, stub in (("SOLUTION", rf"\g<1>{STUB}\n"), ("HIDDEN TESTS", "")):
            block = rf"^([ \t]*)### BEGIN {kind}\n.*?^[ \t]*### END {kind}[ \t]*(\n|\Z)"
            cell.source = re.sub(block, stub, cell.source, flags=re.MULTILINE | re.DOTALL).rstrip(
                "\n"
            )
        if re.search("### (BEGIN|END)", cell.source):
            raise ValueError(f"Each ### BEGIN must have its ### END. Received:\n{cell.source}")
    return notebook


def execute(notebook, fast=False):
    """Runs a notebook from a fresh kernel, in place, and leaves out what differs from machine to machine."""
    one_thread = {
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
    }  # tests run beside each other
    kernel_env = {
        **os.environ,
        **(one_thread if fast else {}),
        "KERAS_COMPRESS_FAST": "1" if fast else "0",
    }
    client = NotebookClient(
        notebook,
        timeout=3600,
        kernel_name="python3",
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute(env=kernel_env)
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def run_exercises(built, source):
    """Takes over the exercises of a source, in place, with their outputs. They need the imports alone."""
    cells = [[cell for cell in book.cells if cell.cell_type == "code"] for book in (built, source)]
    pairs = [pair for pair in zip(*cells) if "nbgrader" in pair[1].metadata]
    seed = nbformat.v4.new_code_cell("SEED = 0")
    alone = [cells[1][0], seed, *(cell for _, cell in pairs)]
    execute(nbformat.v4.new_notebook(cells=alone), fast=True)
    for cell, done in pairs:
        cell.source, cell.outputs = done.source, done.outputs


def problems(name, notebook):
    """What is wrong with a built notebook: list of str, empty if nothing is."""
    found, source = [], student_version(read_source(name))
    if [(c.cell_type, c.source, c.metadata) for c in notebook.cells] != [
        (c.cell_type, c.source, c.metadata) for c in source.cells
    ]:
        found.append("its cells are not those of the source; build it again")
    content = nbformat.writes(notebook)
    if len(content.encode()) >= MAX_BYTES:
        found.append(
            f"it must be smaller than {MAX_BYTES:,} bytes, and has {len(content.encode()):,}"
        )
    if "widget" in str(notebook.metadata) or "jupyter.widget" in content:
        found.append("it holds widget state")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for output in outputs:
        texts = [
            output.get("text", ""),
            *output.get("data", {}).values(),
            *output.get("traceback", []),
        ]
        found += [
            f"an output names a place of this machine: {text[:200]}"
            for text in texts
            if MACHINE_PATH.search(text) or str(FOLDER.parent) in text
        ]
        if output.output_type == "error" or output.get("name") == "stderr":
            found.append("an output is an error or progress")
    if not outputs:
        found.append("it has no outputs")
    return found


def write(path, notebook):
    nbformat.validate(notebook)
    with atomic_write(path) as file:
        file.write(nbformat.writes(notebook) + "\n")


def build(name, text_only=False):
    """Executes a lesson and writes it and its twin. Raises ValueError if they may not be committed."""
    executed = (
        nbformat.read(FOLDER / f"{name}.ipynb", 4) if text_only else execute(read_source(name))
    )
    if text_only:
        run_exercises(executed, read_source(name))
    if code_of(executed) != code_of(read_source(name)):
        raise ValueError(
            f"{name}: `--text` needs code cells that are unchanged, but for exercises. Leave it out, and the "
            "lesson is executed."
        )
    for twin in (name, f"{name}.zh"):
        notebook = read_source(twin)
        cells = (
            [cell for cell in book.cells if cell.cell_type == "code"]
            for book in (notebook, executed)
        )
        for cell, done in zip(*cells, strict=True):
            cell.outputs, cell.execution_count = done.outputs, done.execution_count
        student_version(notebook)
        if problems(twin, notebook):
            raise ValueError(f"{twin}: " + "; ".join(problems(twin, notebook)))
        write(FOLDER / f"{twin}.ipynb", notebook)
        print(FOLDER.name + f"/{twin}.ipynb")
    with atomic_write(FOLDER / "solutions" / f"{name}.md") as file:
        file.write(solutions(name))


def solutions(name):
    """The answers of a lesson's exercises, as Markdown."""
    lines = [f"# {name}: solutions", "", "Try the exercises first. Each answer is one of many."]
    for cell in read_source(name).cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            code = re.sub("^ *### (BEGIN|END) SOLUTION\n?", "", cell.source, flags=re.MULTILINE)
            lines += [
                "",
                f"## {cell.metadata.nbgrader.grade_id}",
                "",
                "```",
                code.rstrip(),
                "```",
            ]
    return "\n".join(lines) + "\n"


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m notebooks.build", description="Builds the lessons."
    )
    parser.add_argument(
        "name", nargs="*", metavar="NAME", help=f"lessons (default: all): {', '.join(lessons())}"
    )
    from notebooks import handout  # which imports this file

    kinds = {"student": handout.kit, "nbgrader": handout.course, "site": handout.site}
    for kind, what in (
        ("student", "students' kit"),
        ("nbgrader", "nbgrader course"),
        ("site", "site"),
    ):
        parser.add_argument(
            f"--{kind}", type=Path, metavar="DIR", help=f"write a {what}; executes nothing"
        )
    parser.add_argument(
        "--text",
        action="store_true",
        help="keep the outputs: only prose and exercises have changed",
    )
    parser.add_argument(
        "--check", action="store_true", help="only compare the built notebooks with their sources"
    )
    options = parser.parse_args(arguments)
    unknown = set(options.name) - set(lessons())
    if unknown:
        parser.error(
            f"NAME must be among {', '.join(lessons())}. Received: {', '.join(sorted(unknown))}."
        )
    names, failed = options.name or lessons(), False
    folders = {kind: getattr(options, kind) for kind in kinds if getattr(options, kind)}
    for kind, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        kinds[kind](folder, names)
    for name in names if not folders else ():
        if not options.check:
            build(name, options.text)
            continue
        for twin in (name, f"{name}.zh"):
            path = FOLDER / f"{twin}.ipynb"
            found = (
                problems(twin, nbformat.read(path, 4)) if path.is_file() else ["it is not built"]
            )
            failed |= bool(found)
            print(f"{twin}: {'; '.join(found) or 'up to date'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
