import csv
import re
import subprocess
import sys

import nbformat
import pytest

from notebooks import build, grade
from tests.notebooks.mutants import MUTANTS

LESSONS = build.lessons()


def answered(name, bodies=None, twin=""):
    """A student's notebook with these bodies of the functions; None: the model answers."""
    notebook = build.read_source(name + twin)
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("solution") and bodies is not None:
            body = bodies.get(marks["grade_id"], 'raise NotImplementedError("your turn")')
            signature = re.search(r"^def .*:$", cell.source, re.M)[0]
            cell.source = signature + "\n    " + body.replace("\n", "\n    ")
    return build.student_version(notebook) if bodies is not None else notebook


def graded(tmp_path, name, *options):
    """(rows of grades.csv {student: row}, what was printed). In a process of its own, which may fork."""
    command = [sys.executable, "-m", "notebooks.grade", name, tmp_path / "in", "--out", tmp_path]
    done = subprocess.run(
        [*command, *options], cwd=build.FOLDER.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "grades.csv", encoding="utf-8", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}, done.stdout


@pytest.mark.parametrize("name", LESSONS)
def test_items_have_the_points_of_the_lesson(name):
    _, exercises = grade.read_lesson(name)
    for exercise in exercises:
        visible = sum(item.points for item in exercise.items if item.visible)
        assert sum(item.points for item in exercise.items) == exercise.points
        assert 0.3 <= visible / exercise.points <= 0.5
        stated = re.search(r"visible checks passed \(([\d.]+) of (\d+) points\)", exercise.check)
        assert (float(stated[1]), int(stated[2])) == (visible, exercise.points)
        assert len({item.title for item in exercise.items}) == len(exercise.items)
        assert len(MUTANTS[exercise.name]) >= 3


@pytest.mark.parametrize("name", LESSONS)
def test_mutants_get_the_points_beside_them(name, tmp_path):
    (tmp_path / "in").mkdir()
    _, exercises = grade.read_lesson(name)
    books = {"right": None, "stub": {}}
    for number in range(max(len(MUTANTS[e.name]) for e in exercises)):
        books[f"wrong{number}"] = {
            e.name: MUTANTS[e.name][number][1] for e in exercises if number < len(MUTANTS[e.name])
        }
    for student, bodies in books.items():
        nbformat.write(answered(name, bodies), tmp_path / "in" / f"{student}.ipynb")
    rows, printed = graded(tmp_path, name, "--seed", "7")
    wanted = {
        student: {
            e.name: e.points
            if bodies is None
            else next((p for p, body in MUTANTS[e.name] if body == bodies.get(e.name)), 0)
            for e in exercises
        }
        for student, bodies in books.items()
    }
    found = {s: {e.name: float(rows[s][e.name]) for e in exercises} for s in books}
    assert found == wanted
    assert [row["flags"] for row in rows.values()] == [""] * len(rows)
    assert float(rows["right"]["total"]) == 10 and float(rows["stub"]["total"]) == 0
    assert f"of {len(books)} |" in printed
