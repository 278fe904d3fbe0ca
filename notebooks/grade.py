"""Grades a lesson: grades.csv, feedback for each student, and what the class missed.

    python -m notebooks.grade 02 submissions             writes grades/02_.../grades.csv and feedback/NAME.md there
    python -m notebooks.grade 02 submissions --seed 4711 other hidden values
    python -m notebooks.grade 02 mine.ipynb --visible    prints a student's own score of the visible checks

SUBMISSIONS holds NAME.ipynb or folders NAME with a notebook. Of these only the answer cells are read, by their
`grade_id`; checks and points come from the lesson. A flag is no verdict: no points are taken away for it.
"""

import argparse
import collections
import csv
import json
import os
import re
import sys
from pathlib import Path

from notebooks import gate, sandbox

FOLDER = Path(__file__).resolve().parent
KEPT = (
    FOLDER / "checks"
)  # a student's kit has the lessons there, without solutions and hidden checks
MAX_BYTES = 20_000_000
HIDDEN = re.compile(r"^### BEGIN HIDDEN TESTS\n(.*?)^### END HIDDEN TESTS\n?", re.M | re.S)
ITEM = re.compile(r"^#: ([\d.]+) points?: (.+)\n", re.M)
BANNED = re.compile(r"^#: banned: (.+)$", re.M)

Item = collections.namedtuple("Item", "exercise points title visible code")
Exercise = collections.namedtuple("Exercise", "name function model points check items banned")
Result = collections.namedtuple("Result", "language flags errors")
WORDS = {
    "en": {
        "head": "# {lesson}: {student}, {got} of {most} points",
        "exercise": "## {name}: {got} of {most} points",
        "passed": "passed ({points}): {title}",
        "missed": "missed ({points}): {title}. {error}",
        "empty": "not answered",
        "look": "A person will look at this; it took no points away:",
        "alone": "An answer must not use what other cells define or import.",
    },
    "zh": {
        "head": "# {lesson}：{student}，{got} 分（满分 {most} 分）",
        "exercise": "## {name}：{got} 分（满分 {most} 分）",
        "passed": "通过（{points} 分）：{title}",
        "missed": "未通过（{points} 分）：{title}。{error}",
        "empty": "未作答",
        "look": "以下内容将由教师人工查看，并未因此扣分：",
        "alone": "答案单元格不能依赖其他单元格里的定义或导入。",
    },
}


def lesson_names():
    if KEPT.is_dir():
        return sorted(path.stem for path in KEPT.glob("*.ipynb"))
    from notebooks.build import lessons

    return lessons()


def lesson_cells(name):
    if KEPT.is_dir():
        return json.loads((KEPT / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    from notebooks.build import read_source

    return read_source(name).cells


def items_of(exercise, check):
    """The named items of a check cell. Code before the first of a part belongs to all items below it."""
    shared, items = "", []
    hidden = HIDDEN.search(check)
    for visible, part in ((True, HIDDEN.sub("", check)), (False, hidden[1] if hidden else "")):
        before, *pieces = ITEM.split(part)
        shared += before
        for points, title, code in zip(*[iter(pieces)] * 3):
            items.append(Item(exercise, float(points), title, visible, shared + code))
    return items


def read_lesson(name):
    """(source of the imports, [Exercise])."""
    cells = [cell for cell in lesson_cells(name) if cell["cell_type"] == "code"]
    exercises = []
    for answer, check in zip(cells, cells[1:]):
        marks = answer["metadata"].get("nbgrader", {})
        if not marks.get("solution"):
            continue
        model, tests = gate.text(answer), gate.text(check)
        items, banned = items_of(marks["grade_id"], tests), BANNED.search(tests)
        exercises.append(
            Exercise(
                marks["grade_id"],
                re.search(r"^def (\w+)", model, re.M)[1],
                model,
                check["metadata"]["nbgrader"]["points"],
                HIDDEN.sub("", tests).strip(),
                items,
                banned[1].split(", ") if banned else [],
            )
        )
    return gate.text(cells[0]), exercises


def read_submission(path, exercises):
    """(answers {exercise: source}, language, flags) of a notebook that may be anything."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return {}, "en", [f"larger than {MAX_BYTES:,} bytes: not read"]
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources = [
            (cell["cell_type"], cell["metadata"].get("nbgrader", {}), gate.text(cell))
            for cell in cells
        ]
        found = [
            (marks.get("grade_id"), source) for kind, marks, source in sources if kind == "code"
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}, "en", ["no notebook that can be read"]
    prose = "".join(source for kind, _, source in sources if kind == "markdown")
    chinese = len(re.findall("[\u4e00-\u9fff]", prose)) > len(prose) / 10
    known, texts = {exercise.name for exercise in exercises}, dict(found)
    answers = {name: source for name, source in found if name in known}
    names = [name for name, _ in found if name]
    if not answers:
        other = ", ".join(map(str, names[:6]))
        flags = [
            f"no answer of this lesson, but cells of another: {other}"
            if names
            else "no answer cells"
        ]
        return {}, "zh" if chinese else "en", flags
    checks = {exercise.name: texts.get(f"{exercise.name}_check") for exercise in exercises}
    deleted = [name for name, check in checks.items() if check is None]
    changed = [
        e.name
        for e in exercises
        if e.name not in deleted and HIDDEN.sub("", checks[e.name]).strip() != e.check
    ]
    flags = {
        "no answer cell": [name for name in known if name not in answers],
        "several answer cells, the last counts": [
            name for name in sorted(known) if names.count(name) > 1
        ],
        "checks deleted (those of the lesson count)": deleted,
        "checks changed (those of the lesson count)": changed,
    }
    return (
        answers,
        "zh" if chinese else "en",
        [f"{what}: {', '.join(sorted(who))}" for what, who in flags.items() if who],
    )


def submissions(place, exercises):
    """{name: (answers, language, flags)} of a notebook, or of all in a folder and in its folders."""
    found = {}
    for entry in [place] if place.is_file() else sorted(place.iterdir()):
        if entry.name.startswith((".", "__MACOSX")):
            continue
        name = entry.stem if entry.is_file() else entry.name
        books = [entry] if entry.is_file() else sorted(entry.rglob("*.ipynb"))
        read = [read_submission(b, exercises) for b in books if ".ipynb_checkpoints" not in b.parts]
        ours = (
            [one for one in read if one[0]] or read or [({}, "en", ["no notebook in this folder"])]
        )
        answers, language, flags = ours[0]
        if len(ours) > 1:
            flags = [*flags, f"{len(ours)} notebooks, the first counts"]
        found[entry.name if name in found else name] = answers, language, flags
    return found


def grade(name, place, seed=0, visible=False, seconds=20):
    """Grades all submissions.

    Returns:
        ([Item], {student: Result}), whose `errors` are {Item: "" if it passed}.
    """
    imports, exercises = read_lesson(name)
    read = submissions(place, exercises)
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "MPLBACKEND": "agg", "TF_CPP_MIN_LOG_LEVEL": "3"}
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    names = {"__name__": "__main__"}
    exec(compile(imports, "imports", "exec"), names)
    sys.path[:] = [
        place for place in sys.path if place != ".."
    ]  # which is another folder in a sandbox
    items = [
        item for exercise in exercises for item in exercise.items if item.visible or not visible
    ]
    tasks, flags = {}, {student: list(flags) for student, (_, _, flags) in read.items()}
    for student, (answers, _, _) in read.items():
        for exercise in exercises:
            if answer := answers.get(exercise.name):
                flags[student] += [
                    f"{exercise.name} {flag}"
                    for flag in gate.flags(answer, exercise.model, names, exercise.banned)
                ]
                numbered = [
                    (n, item.code) for n, item in enumerate(items) if item.exercise == exercise.name
                ]
                tasks[student, exercise.name] = sandbox.examine(
                    names, answer, exercise.function, numbered, seed, names["tf"].constant
                )
    errors = {student: dict.fromkeys(items, "not answered") for student in read}
    for (student, exercise), (messages, why) in sandbox.run(tasks, seconds).items():
        flags[student] += [
            f"{exercise} {message['flag']}" for message in messages if "flag" in message
        ]
        reached = {message["item"]: message["error"] for message in messages if "item" in message}
        mine = [n for n, item in enumerate(items) if item.exercise == exercise]
        why = why or ("" if len(reached) == len(mine) else "the process ended early")
        flags[student] += [f"{exercise} {why}"] if why else []
        errors[student] |= {items[n]: reached.get(n, why) for n in mine}
    return items, {
        s: Result(language, list(dict.fromkeys(flags[s])), errors[s])
        for s, (_, language, _) in read.items()
    }


def score(items, result, exercise=None):
    """(points reached, points there are), of one exercise or of all."""
    mine = [item for item in items if exercise in (None, item.exercise)]
    return sum(item.points for item in mine if not result.errors[item]), sum(
        item.points for item in mine
    )


def feedback(lesson, student, items, result):
    """A student's page in the language of the notebook, as Markdown."""
    words = WORDS[result.language]
    got, most = score(items, result)
    lines = [words["head"].format(lesson=lesson, student=student, got=f"{got:g}", most=f"{most:g}")]
    for exercise in dict.fromkeys(item.exercise for item in items):
        got, most = score(items, result, exercise)
        lines += ["", words["exercise"].format(name=exercise, got=f"{got:g}", most=f"{most:g}"), ""]
        for item in (item for item in items if item.exercise == exercise):
            error = result.errors[item]
            if error.endswith("your turn") or error == "not answered":
                error = words["empty"]
            elif error.startswith("NameError"):
                error += f" {words['alone']}"
            line = words["missed" if error else "passed"]
            lines.append(
                "- " + line.format(points=f"{item.points:g}", title=item.title, error=error)
            )
    if result.flags:
        lines += ["", words["look"], "", *(f"- {flag}" for flag in result.flags)]
    return "\n".join(lines) + "\n"


def missed(items, results):
    """What the class missed, the most frequent first, as a Markdown table."""
    rows = [(sum(bool(result.errors[item]) for result in results.values()), item) for item in items]
    lines = ["| check | points | missed by |", "|---|---|---|"]
    for count, item in sorted(rows, key=lambda row: -row[0]):
        lines.append(
            f"| {item.exercise}: {item.title} | {item.points:g} | {count} of {len(results)} |"
        )
    return "\n".join(lines)


def write(folder, lesson, items, results):
    """grades.csv and feedback/NAME.md."""
    (folder / "feedback").mkdir(parents=True, exist_ok=True)
    exercises = list(dict.fromkeys(item.exercise for item in items))
    with open(folder / "grades.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["student", "total", *exercises, "flags"])
        for student, result in results.items():
            points = [score(items, result, exercise)[0] for exercise in (None, *exercises)]
            table.writerow([student, *(f"{p:g}" for p in points), "; ".join(result.flags)])
            page = feedback(lesson, student, items, result)
            (folder / "feedback" / f"{student}.md").write_text(page, encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m notebooks.grade", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "lesson", metavar="LESSON", help="a lesson or the start of its name, such as 02"
    )
    parser.add_argument(
        "submissions", metavar="SUBMISSIONS", type=Path, help="a notebook, or a folder of them"
    )
    parser.add_argument("--visible", action="store_true", help="only the checks that students see")
    parser.add_argument("--seed", type=int, default=0, help="of the hidden values (default: 0)")
    parser.add_argument("--seconds", type=float, default=20, help="for one exercise (default: 20)")
    parser.add_argument("--out", type=Path, help="folder of the grades (default: grades/LESSON)")
    options = parser.parse_args(arguments)
    matching = [name for name in lesson_names() if name.startswith(options.lesson)]
    if len(matching) != 1:
        parser.error(
            f"LESSON must name one of {', '.join(lesson_names())}. Received: {options.lesson}."
        )
    if not options.submissions.exists():
        parser.error(
            f"SUBMISSIONS must be a notebook or a folder. Received: {options.submissions}."
        )
    if not __debug__:
        parser.error("Checks are assertions, which `python -O` leaves out. Call python without it.")
    lesson = matching[0]
    items, results = grade(
        lesson, options.submissions, options.seed, options.visible, options.seconds
    )
    if options.submissions.is_file():
        print(*(feedback(lesson, student, items, result) for student, result in results.items()))
        return 0
    folder = options.out or Path("grades") / lesson
    write(folder, lesson, items, results)
    print(f"{folder / 'grades.csv'}: {len(results)} students\n\n{missed(items, results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
