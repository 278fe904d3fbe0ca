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


FOLD = re.compile(r"<details><summary>(.*?)</summary>\n\n(.*?)\n\n</details>", re.DOTALL)
RESULT, ANSWERS, HINT = (
    ("What came out here", "这里的结果"),
    ("Answers, and why", "答案和理由"),
    ("Hint", "提示"),
)
ENDS = ("In five lines", "Five questions", "A challenge"), ("五句话小结", "五个问题", "挑战")


def numbers_in(text):
    return {number.rstrip(",.") for number in re.findall(r"\d[\d,.]*", text)}


def unsupported(notebook):
    """Texts with a number that stands nowhere: of a result in the outputs, of others in the lesson."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    told = numbers_in(
        " ".join(o.get("text", "") + o.get("data", {}).get("text/markdown", "") for o in outputs)
    )
    *lesson, summary, _, _ = notebook.cells
    said = told | numbers_in(" ".join(FOLD.sub("", cell.source) for cell in lesson))
    asked = said | numbers_in(FOLD.sub("", notebook.cells[-2].source))
    folds = [fold for cell in notebook.cells for fold in FOLD.findall(cell.source)]
    known = [asked if title.startswith((*ANSWERS, *HINT)) else told for title, _ in folds]
    texts = [*(text for _, text in folds), summary.source.split("\n", 1)[1]]
    wrong = [numbers_in(text) - where for text, where in zip(texts, [*known, said], strict=True)]
    return [(text, numbers) for text, numbers in zip(texts, wrong) if numbers]


@pytest.mark.parametrize("name", ALL)
def test_the_numbers_of_a_folded_text_stand_in_the_outputs(name):
    notebook = nbformat.read(build.FOLDER / f"{name}.ipynb", 4)
    assert unsupported(notebook) == []
    results = [cell for cell in notebook.cells if any(f">{r}<" in cell.source for r in RESULT)]
    assert len(results) >= 3


def test_a_number_that_no_output_holds_is_found():
    notebook = nbformat.read(build.FOLDER / f"{LESSONS[0]}.ipynb", 4)
    cell = next(cell for cell in notebook.cells if f">{RESULT[0]}<" in cell.source)
    cell.source = re.sub(r"\d\.\d+", "987.65", cell.source, count=1)
    notebook.cells[-3].source += " 543.21"
    assert [wrong for _, wrong in unsupported(notebook)] == [{"987.65"}, {"543.21"}]


@pytest.mark.parametrize("name", LESSONS)
def test_results_have_the_same_numbers_in_both_languages(name):
    for cells in zip(build.read_source(name).cells, build.read_source(f"{name}.zh").cells):
        folds = [FOLD.findall(cell.source) for cell in cells]
        for (summary, text), (twin_summary, twin) in zip(*folds, strict=True):
            assert (summary in RESULT) == (twin_summary in RESULT)
            assert summary not in RESULT or numbers_in(text) == numbers_in(twin)


def check_the_end(cells, language):
    """A summary of five lines, five questions with every choice explained, a challenge: the last three cells."""
    for cell, title in zip(cells[-3:], ENDS[language], strict=True):
        assert re.match(rf"## \d+\. {title}\n\n", cell.source)
    summary, quiz, challenge = (cell.source for cell in cells[-3:])
    assert len(re.findall("^- ", summary, re.MULTILINE)) == 5 and "<details>" not in summary
    questions = re.split(r"^\*\*(\d)\.\*\* ", quiz, flags=re.MULTILINE)
    assert questions[1::2] == list("12345")
    marks, right = (("Right. ", "No. "), ("对。", "错。"))[language], []
    for question in questions[2::2]:
        ((title, answers),) = FOLD.findall(question)
        choices, reasons = (
            re.findall(r"^- \*\*([a-d])\*\* (.+)$", text, re.MULTILINE)
            for text in (FOLD.sub("", question), answers)
        )
        assert title == ANSWERS[language] and len(choices) >= 3
        assert [letter for letter, _ in choices] == [letter for letter, _ in reasons]
        assert all(reason.startswith(marks) and len(reason) > 8 for _, reason in reasons)
        (answer,) = [letter for letter, reason in reasons if reason.startswith(marks[0])]
        right.append(answer)
    assert len(set(right)) > 1, "the right choice must not always be the same letter"
    assert len(challenge.split("\n\n", 1)[1]) > 80 - 40 * language
    return right


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_ends_with_a_summary_questions_and_a_challenge(name):
    twins = [build.read_source(twin).cells for twin in (name, f"{name}.zh")]
    right = [check_the_end(cells, language) for language, cells in enumerate(twins)]
    assert right[0] == right[1]
    twins[0][-2].source = re.sub(r"- \*\*b\*\* No\..*\n", "", twins[0][-2].source, count=1)
    with pytest.raises(AssertionError):
        check_the_end(twins[0], 0)


@pytest.mark.parametrize("name", ALL)
def test_an_exercise_has_hints_and_the_head_says_what_is_needed(name):
    cells = build.read_source(name).cells
    exercises = [c for c in cells if re.search("^### (Exercise|练习) ", c.source, re.MULTILINE)]
    for cell in exercises:
        titles = [summary for summary, _ in FOLD.findall(cell.source)]
        assert [t.split()[-1] for t in titles if t.startswith(HINT)] == ["1", "2", "3"]
    assert len(exercises) == 3
    first = r"minutes?\b.*10\s+points.*Memory.* GB", r"分钟.*10 分.*内存.* GB"
    needs = (
        r"\*\*You need\*\* .*Lesson|No other lesson",
        r"\*\*预备知识\*\*.*第 \d 课|不以其他课为基础",
    )
    for pattern in (first, needs):
        assert re.search(pattern[name.endswith(".zh")], cells[0].source, re.DOTALL)


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
