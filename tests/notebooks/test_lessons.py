import ast
import os
import re
import subprocess
import sys
import zipfile

import nbformat
import pytest

from keras_compress import datasets
from notebooks import build

HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS", re.DOTALL)
LESSONS = build.lessons()
ALL = [twin for name in LESSONS for twin in (name, f"{name}.zh")]


def exercises(notebook):
    """[(stub or solution, checks)], in order."""
    cells = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    assert [cell.metadata.nbgrader["solution"] for cell in cells] == [True, False] * (
        len(cells) // 2
    )
    return list(zip(cells[::2], cells[1::2]))


@pytest.mark.parametrize("name", LESSONS)
def test_the_lesson_runs_from_a_fresh_kernel_without_exercises_and_then_with_answers(name):
    datasets.load(
        "apidocs", task="unlabelled"
    )  # read out of the libraries once a clone: no lesson's own time
    before = os.times()
    notebook = build.student_version(build.read_source(name))
    checks = [check for _, check in exercises(notebook)]
    for check in checks:
        check.metadata["tags"] = ["raises-exception"]
    answers = [cell for pair in exercises(build.read_source(name)) for cell in pair]
    notebook.cells += answers
    build.execute(notebook, fast=True)
    used = (
        os.times().children_user
        + os.times().children_system
        - before.children_user
        - before.children_system
    )
    assert (
        used < 60
    )  # seconds of processor time, which a busy neighbour stretches: at most 45 s on two idle cores
    notebook.cells = notebook.cells[: -len(answers)]
    for check in checks:
        assert check.outputs.pop().evalue == "your turn"
        del check.metadata["tags"]
    assert build.problems(name, notebook) == []


def names_in(cells):
    """(names that the cells bind, names that they read before they bind them in the same cell)."""
    bound, needed = set(), set()
    for cell in cells:
        nodes = list(ast.walk(ast.parse(cell.source)))
        here = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        here |= {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
        arguments = {n.arg for n in nodes if isinstance(n, ast.arg)}
        needed |= {n.id for n in nodes if isinstance(n, ast.Name)} - here - arguments
        bound |= here
    return bound, needed


@pytest.mark.parametrize("name", LESSONS)
def test_a_skipped_exercise_breaks_nothing_below_it(name):
    code = [cell for cell in build.read_source(name).cells if cell.cell_type == "code"]
    for cell, check in exercises(build.read_source(name)):
        place = [other.source for other in code].index(check.source)
        rest = [other for other in code[place + 1 :] if "nbgrader" not in other.metadata]
        lost, _ = names_in([cell, check])
        assert not lost & names_in(rest)[1]


@pytest.mark.parametrize("name", LESSONS)
def test_the_twin_has_the_same_structure(name):
    for english, chinese in zip(
        build.read_source(name).cells, build.read_source(f"{name}.zh").cells, strict=True
    ):
        texts = english.source, chinese.source
        if english.cell_type == "code":
            assert not re.search("[\u4e00-\u9fff]", english.source), "code is English in both"
            continue
        assert re.search("[\u4e00-\u9fff]", chinese.source)
        levels = [re.findall(r"^#+(?= )", text, re.MULTILINE) for text in texts]
        names = [set(re.findall(r"`[^`\n]+`|\$[^$\n]+\$", text)) for text in texts]
        assert levels[0] == levels[1] and names[0] == names[1]
        points = (
            re.findall(pattern, text)
            for pattern, text in zip(
                (r"Exercise (\d+) \((\d+) points\)", r"练习 (\d+)（(\d+) 分）"), texts
            )
        )
        assert next(points) == next(points)


def test_a_twin_holds_prose_alone(tmp_path, monkeypatch):
    name = LESSONS[0]
    for twin in (name, f"{name}.zh"):
        (tmp_path / f"{twin}.py").write_text(
            (build.SOURCE / f"{twin}.py").read_text(encoding="utf-8"), encoding="utf-8"
        )
    monkeypatch.setattr(build, "SOURCE", tmp_path)
    with open(tmp_path / f"{name}.zh.py", "a", encoding="utf-8") as file:
        file.write("\n# %%\nprint()\n")
    with pytest.raises(
        ValueError, match="prose cells of the lesson and no other.* and 1 code cells"
    ):
        build.read_source(f"{name}.zh")


@pytest.mark.parametrize("name", ALL)
def test_the_built_notebook_is_up_to_date(name):
    notebook = nbformat.read(build.FOLDER / f"{name}.ipynb", 4)
    answers = build.FOLDER / "solutions" / f"{name.removesuffix('.zh')}.md"
    assert answers.read_text(encoding="utf-8") == build.solutions(name.removesuffix(".zh"))
    assert build.problems(name, notebook) == []
    nbformat.validate(notebook)
    run = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in run] == list(range(1, len(run) + 1))


@pytest.mark.parametrize("name", ALL)
def test_the_numbers_of_a_folded_answer_stand_in_the_outputs(name):
    notebook = nbformat.read(build.FOLDER / f"{name}.ipynb", 4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    told = " ".join(o.get("text", "") + o.get("data", {}).get("text/markdown", "") for o in outputs)
    numbers = {number.rstrip(",.") for number in re.findall(r"\d[\d,.]*", told)}
    for cell in notebook.cells:
        for answer in re.findall(r"<details>.*?</details>", cell.source, re.DOTALL):
            mine = {number.rstrip(",.") for number in re.findall(r"\d[\d,.]*", answer)}
            assert not mine - numbers, answer


@pytest.mark.parametrize("name", LESSONS)
def test_cells_are_short_and_explained(name):
    cells = build.read_source(name).cells
    assert cells[0].cell_type == "markdown" and "Seed" in cells[0].source
    for cell in cells:
        lines = [line for line in HIDDEN.sub("", cell.source).split("\n") if line.strip()]
        assert cell.cell_type == "markdown" or len(lines) <= 15, cell.source
    headings = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    points = [cell.metadata.nbgrader["points"] for _, cell in exercises(build.read_source(name))]
    assert [int(p) for p in re.findall(r"### Exercise \d+ \((\d+) points\)", headings)] == points
    assert len(points) == 3


@pytest.mark.parametrize("name", LESSONS)
def test_the_student_version_keeps_stubs_and_visible_checks(name, monkeypatch):
    for twin in (name, f"{name}.zh"):
        source = build.read_source(twin)
        student = build.student_version(build.read_source(twin))
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in student.cells)
        assert len(student.cells) == len(source.cells)
        text = nbformat.writes(student)
        assert "### BEGIN" not in text and "### END" not in text
        for cell in source.cells:
            for secret in re.findall(
                r"### BEGIN (?:SOLUTION|HIDDEN TESTS)\n(.*?)### END", cell.source, re.DOTALL
            ):
                assert not any(
                    line.strip() in cell.source
                    for cell in student.cells
                    for line in secret.splitlines()
                    if len(line.strip()) > 12 and line.strip() != "except ValueError:"
                )
    monkeypatch.chdir(build.FOLDER)
    imports = {}
    exec(student.cells[1].source, imports)
    for (stub, check), (solution, _) in zip(exercises(student), exercises(source)):
        names = dict(imports)
        exec(stub.source, names)
        with pytest.raises(NotImplementedError, match="your turn"):
            exec(check.source, names)
        exec(solution.source, names)
        exec(check.source, names)


def test_a_marker_without_its_partner_is_an_error():
    notebook = build.read_source(LESSONS[0])
    notebook.cells[1].source += "\n### BEGIN SOLUTION\nsecret = 1"
    with pytest.raises(ValueError, match="### END"):
        build.student_version(notebook)


def test_problems_of_a_built_notebook_are_named():
    name = LESSONS[0]
    notebook = build.read_source(name)
    build.student_version(notebook)
    assert build.problems(name, notebook) == ["it has no outputs"]
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="see /home/someone/file\n"),
        nbformat.v4.new_output("stream", name="stderr", text="50%|#####"),
        nbformat.v4.new_output("display_data", {"image/png": "A" * build.MAX_BYTES}),
    ]
    notebook.metadata["widgets"] = {}
    notebook.cells[0].source += "!"
    found = "; ".join(build.problems(name, notebook))
    for part in (
        "not those of the source",
        "smaller than",
        "widget",
        "a place of this machine",
        "progress",
    ):
        assert part in found


def test_build_refuses_an_unknown_lesson(capsys):
    with pytest.raises(SystemExit):
        build.main(["99_nothing"])
    assert "NAME must be among" in capsys.readouterr().err


def test_a_kit_works_outside_of_the_clone_and_holds_no_solutions(tmp_path):
    kit, package = tmp_path / "kit", tmp_path / "package"
    assert build.main(["--student", str(kit), LESSONS[0]]) == 0
    (wheel,) = kit.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [path for path in archive.namelist() if "notebooks" in path]
        archive.extractall(package)
    hidden = [
        path for path in kit.rglob("*.ipynb") if "### BEGIN" in path.read_text(encoding="utf-8")
    ]
    assert not hidden and (kit / "requirements.txt").is_file() and (kit / "README.zh.md").is_file()
    for twin, score in (
        (LESSONS[0], "0 of 3.5 points"),
        (f"{LESSONS[0]}.zh", "0 分（满分 3.5 分）"),
    ):
        done = subprocess.run(
            [sys.executable, "check.py", f"{twin}.ipynb"],
            cwd=kit,
            env={**os.environ, "PYTHONPATH": str(package)},
            capture_output=True,
            text=True,
        )
        assert score in done.stdout, done.stderr


def test_a_course_for_nbgrader_and_a_site(tmp_path):
    name = LESSONS[0]
    assert build.main(["--nbgrader", str(tmp_path / "course"), name]) == 0
    book = nbformat.read(tmp_path / "course" / "source" / name / f"{name}.ipynb", 4)
    assert [cell.source for cell in book.cells] == [c.source for c in build.read_source(name).cells]
    config = (tmp_path / "course" / "nbgrader_config.py").read_text(encoding="utf-8")
    compile(config, "nbgrader_config.py", "exec")
    assert build.main(["--site", str(tmp_path / "site"), name]) == 0
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert f'href="{name}.zh.html"' in index
    page = (tmp_path / "site" / f"{name}.html").read_text(encoding="utf-8")
    assert "image/png;base64" in page and "BEGIN SOLUTION" not in page
