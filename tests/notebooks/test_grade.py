import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

from notebooks import build, gate, grade

LESSONS = build.lessons()
FIRST = "01_bert_of_theseus"


def read_mutants():
    """{exercise: [(points, body of the function)]}, typical wrong answers."""
    text, found = Path(__file__).with_name("mutants.txt").read_text(encoding="utf-8"), {}
    _, *exercises = re.split(r"^## (\w+)\n", text, flags=re.M)
    for name, block in zip(exercises[::2], exercises[1::2]):
        _, *parts = re.split(r"^# ([\d.]+) points?: .+\n", block, flags=re.M)
        found[name] = [(float(p), body.strip()) for p, body in zip(parts[::2], parts[1::2])]
    return found


MUTANTS = read_mutants()


def answered(name, bodies=(), twin=""):
    """A student's notebook: these bodies of functions, else the model answers."""
    notebook = build.read_source(name + twin)
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        if grade_id in bodies:
            signature = re.search(r"^def .*:$", cell.source, re.M)[0]
            cell.source = signature + "\n    " + bodies[grade_id].replace("\n", "\n    ")
    return notebook


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
    stub = 0, build.STUB
    books = {"right": {}, "stub": {e.name: stub for e in exercises}}
    for number in range(max(len(MUTANTS[e.name]) for e in exercises)):
        wrong = {e.name: [*MUTANTS[e.name][number:], stub][0] for e in exercises}
        books[f"wrong{number}"] = wrong
    for student, chosen in books.items():
        book = answered(name, {exercise: body for exercise, (_, body) in chosen.items()})
        nbformat.write(book, tmp_path / "in" / f"{student}.ipynb")
    rows, printed = graded(tmp_path, name, "--seed", "7")
    wanted = {
        student: {e.name: chosen.get(e.name, (e.points, ""))[0] for e in exercises}
        for student, chosen in books.items()
    }
    found = {s: {e.name: float(rows[s][e.name]) for e in exercises} for s in books}
    assert found == wanted
    assert [row["flags"] for row in rows.values()] == [""] * len(rows)
    assert float(rows["right"]["total"]) == 10 and float(rows["stub"]["total"]) == 0
    assert f"of {len(books)} |" in printed


PATCH = """
def curriculum(step, base=0.3, k=0.0006):
    return 0.0


np.testing.assert_allclose = lambda *a, **k: None
"""
SAME = """
class Same(float):
    def __sub__(self, other):
        return 0.0

    __eq__ = __ge__ = lambda self, other: True


def curriculum(step, base=0.3, k=0.0006):
    return Same(0)
"""
RIGHT = "return np.minimum(1.0, k * np.asarray(step) + base)"
# {student: (body of curriculum, or the whole cell; its points; what the line must say)}
ODD = {
    "loop": ("while True:\n    pass", 0, "curriculum stopped after 4 seconds"),
    "loops_later": (
        f"while base != 0.3:\n    pass\n{RIGHT}",
        1,
        "curriculum stopped after 4 seconds",
    ),
    "forks": ("import os\nwhile True:\n    os.fork()", 0, "an answer may not do this: os.fork"),
    "shell": (
        "import subprocess\nsubprocess.run(['true'])\n" + RIGHT,
        0,
        "an answer may not do this: subprocess",
    ),
    "network": (
        "import socket\nsocket.create_connection(('127.0.0.1', 9))\n" + RIGHT,
        0,
        "an answer may not do this: socket",
    ),
    "files": ("open('/tmp/kc_grade_was_here', 'w').write('x')\n" + RIGHT, 0, "uses open"),
    "prints": ("for _ in range(1000):\n    print('x' * 2**20)\n" + RIGHT, 0, "bytes of output"),
    "memory": ("np.ones(2**40)\n" + RIGHT, 0, "Unable to allocate"),
    "forges": (
        "import os\nfor place in range(3, 40):\n    try:\n"
        "        os.write(place, b'odd\\n')\n"
        "    except OSError:\n        pass\nreturn 0.0",
        0,
        "imports os",
    ),
    "leaves": ("import os\nos._exit(0)", 0, "curriculum the process ended early"),
    "recursion": ("return curriculum(step, base, k)", 0, ""),
    "package": (
        "return np.vectorize(theseus.linear_rate(base, k))(step)",
        3,
        "curriculum uses theseus.linear_rate",
    ),
    "hides": (
        "return np.vectorize(globals()['theseus'].linear_rate(base, k))(step)",
        3,
        "curriculum uses globals",
    ),
    "patches": (
        PATCH,
        0,
        "curriculum sets np.testing.assert_allclose; curriculum assertions no longer fail",
    ),
    "compares": (SAME, 0, "curriculum uses __eq__"),
    "syntax": ("\ndef curriculum(step:\n", 0, "SyntaxError"),
    "renamed": ("\ndef linear(step):\n    return 0.3\n", 0, ""),
    "calls_itself_below": (
        f"\ndef curriculum(step, base=0.3, k=0.0006):\n    {RIGHT}\n\n\nprint(curriculum(steps))\n",
        3,
        "NameError: name 'steps' is not defined",
    ),
    "own_import": ("import math\n" + RIGHT, 3, ""),
}


def test_odd_submissions_get_a_line_that_says_so_and_the_rest_is_graded(tmp_path):
    name, folder = FIRST, tmp_path / "in"
    folder.mkdir()
    for student, (code, _, _) in ODD.items():
        book = answered(name)
        cell = next(
            c for c in book.cells if c.metadata.get("nbgrader", {}).get("grade_id") == "curriculum"
        )
        if code.startswith("\n"):
            cell.source = code
        else:
            cell.source = answered(name, {"curriculum": code}).cells[book.cells.index(cell)].source
        nbformat.write(book, folder / f"{student}.ipynb")
    (folder / "essay.txt").write_text("I did not do it.")
    (folder / "broken.ipynb").write_text('{"cells": [')
    (folder / "odd.ipynb").write_text('{"cells": [3, {"cell_type": null}]}')
    (folder / "empty.ipynb").write_text('{"cells": []}')
    (folder / "nothing").mkdir()
    nbformat.write(answered("03_pkd_and_tinybert"), folder / "other.ipynb")
    (folder / "twin").mkdir()
    nbformat.write(
        answered(name, {"mix_texts": "return scc"}, ".zh"), folder / "twin" / "mine.ipynb"
    )
    book = answered(name)
    book.cells = [cell for cell in book.cells if not cell.metadata.get("nbgrader", {}).get("grade")]
    nbformat.write(book, folder / "deleted.ipynb")

    rows, _ = graded(tmp_path, name, "--seconds", "4")
    for student, (_, points, said) in ODD.items():
        row = rows.pop(student)
        assert (float(row["curriculum"]), float(row["mix_texts"])) == (points, 3), row
        assert said in row["flags"] and (said or not row["flags"]), row
    for student, said in {
        "essay": "no notebook",
        "broken": "no notebook",
        "odd": "no notebook",
        "empty": "no answer cells",
        "nothing": "no notebook in this folder",
        "other": "no answer of this lesson, but cells of another: patience",
    }.items():
        row = rows.pop(student)
        assert row["total"] == "0" and said in row["flags"], row
    assert rows["deleted"]["total"] == "10" and "checks deleted" in rows.pop("deleted")["flags"]
    assert rows.pop("twin")["total"] == "7" and not rows
    page = (tmp_path / "feedback" / "twin.md").read_text(encoding="utf-8")
    assert "满分 10 分" in page and "未通过（0.5 分）：a NaN of the side not drawn" in page
    page = (tmp_path / "feedback" / "prints.md").read_text(encoding="utf-8")
    assert "more than 1,048,576 bytes of output" in page
    assert not Path("/tmp/kc_grade_was_here").exists()


def test_thirty_submissions_take_less_than_a_minute_of_the_processor(tmp_path):
    name = FIRST
    (tmp_path / "in").mkdir()
    for number in range(30):
        nbformat.write(answered(name), tmp_path / "in" / f"student{number}.ipynb")
    before = os.times()
    rows, _ = graded(tmp_path, name)
    after = os.times()
    assert {row["total"] for row in rows.values()} == {"10"} and len(rows) == 30
    assert sum(after[2:4]) - sum(before[2:4]) < 60


def test_a_notebook_alone_prints_the_visible_score(tmp_path):
    path = tmp_path / "mine.ipynb"
    nbformat.write(answered(FIRST, {"curriculum": "return min(1.0, k * step + base)"}), path)
    command = [sys.executable, "-m", "notebooks.grade", "01", path, "--visible"]
    done = subprocess.run(command, cwd=build.FOLDER.parent, capture_output=True, text=True)
    assert "mine, 3 of 3.5 points" in done.stdout and "coins" not in done.stdout


def test_an_unknown_lesson_is_refused(tmp_path, capsys):
    for arguments in (["99", str(tmp_path)], ["01", str(tmp_path / "none")]):
        with pytest.raises(SystemExit):
            grade.main(arguments)
    error = capsys.readouterr().err
    assert "Received: 99" in error and "SUBMISSIONS must be" in error


# Answers by one call of what the lesson imports.
ONE_CALL = {
    "masked_softmax": "return tf.keras.layers.Softmax()(scores, tf.cast(mask, tf.bool)[:, None, None, :])",
    "count_parameters": "c = BertConfig(V, H, L, 1, F, P, T, pooling='cls')\nreturn cost.parameters(c, C)",
    "paired_interval": "p = accuracy.paired_difference('accuracy', a, b)\nreturn p['difference'], p['low'], p['high']",
    "mix_texts": "return theseus.ModuleMix(scc, prd)(r)",
    "curriculum": "return theseus.linear_rate(base, k)(step)",
    "soft_loss": "return soft_label_loss(teacher_logits, student_logits, temperature).numpy().mean()",
    "direction_loss": "return masked_mean(cosine_loss(teacher, student), mask)",
    "spread": "from keras_compress.bert.layer_maps import select_layers\nreturn select_layers(num_layers, keep, 'distilbert')",
    "patience": "same = pkd.patience_loss\nreturn same(tf.unstack(teacher_cls, axis=1), tf.unstack(student_cls, axis=1))",
    "my_layer_map": "return tinybert.map_layers(num_layers, num_student_layers, how)[1:]",
    "masked_attention": "return tinybert.attention_loss(teacher_scores, student_scores, mask)",
    "best_factors": "return albert.factorize_table(table, size)",
    "clipped": "return tf.quantization.fake_quant_with_min_max_args(x, -largest, largest, bits, True)",
    "normalise": "from mobile_export.metadata import mediapipe_compatible\nreturn mediapipe_compatible(text)",
    "through_sphere": "with tf.GradientTape() as tape:\n    tape.watch(x := tf.constant(z))\n    y = spherical.on_sphere(x, l_avg)\nreturn tape.gradient(y, x, gradient)",
    "as_norm": "return spherical.on_one_sphere(z, z, 'layernorm', multiplier)[1], multiplier * z.shape[-1] ** 0.5",
    "choose_ta": "return teacher_assistant.choose_assistant(scores, student, teacher)",
    "gate": "return multilevel.GatedMix(lambda x: mlp_x, w)(x)",
    "my_levels": "return multilevel.choose_levels(num_layers, k)",
}


@pytest.mark.parametrize("name", LESSONS)
def test_the_gate_flags_answers_by_one_call_and_lets_wrong_and_right_ones_pass(name, monkeypatch):
    monkeypatch.chdir(build.FOLDER)
    imports, exercises = grade.read_lesson(name)
    names = {}
    exec(imports, names)
    for e in exercises:
        signature = re.search(r"^def .*:$", e.model, re.M)[0]
        flags = lambda body: gate.flags(
            signature + "\n    " + body.replace("\n", "\n    "), e.model, names, e.banned
        )
        assert gate.flags(e.model, e.model, names, e.banned) == []
        assert [flags(body) for _, body in MUTANTS[e.name]] == [[]] * len(MUTANTS[e.name])
        assert e.name not in ONE_CALL or flags(ONE_CALL[e.name])


@pytest.mark.parametrize(
    "code, flag",
    [
        ("np.testing.assert_allclose = print", "sets np.testing.assert_allclose"),
        ("np = 3", "replaces np"),
        ("def np():\n    pass", "replaces np"),
        ("x = np", "uses np"),
        ("from numpy import linalg", "imports numpy.linalg"),
        ("import numpy as np", ""),
        ("def f(np):\n    return np.exp", ""),
        ("x = ().__class__", "uses __class__"),
        ("np.exp(1)", ""),
        ("np.linalg.svd(1)", "uses np.linalg.svd, which is banned here"),
        ("x = eval", "uses eval"),
        ("def f(:", ""),
    ],
)
def test_the_gate_by_hand(code, flag):
    assert gate.flags(code, "y = 1", {"np": np}, ["np.linalg"]) == [flag] * bool(flag)
