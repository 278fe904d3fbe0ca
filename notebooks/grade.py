"""Grades a lesson: grades.csv, feedback for each student, and what the class missed.

    python -m notebooks.grade 02 submissions              into grades/02_.../grades.csv and feedback/NAME.md
    python -m notebooks.grade 02 submissions --seed 4711  with other hidden values
    python -m notebooks.grade 02 mine.ipynb --visible     prints a student's own score, of the visible checks

SUBMISSIONS holds NAME.ipynb, or folders NAME with a notebook. Answer cells alone are read, by their `grade_id`; checks
and points are the lesson's. A flag asks a person to look. It takes no points away.
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

KEPT = Path(__file__).with_name(
    "lessons"
)  # in a kit: the lessons without solutions and hidden checks
MAX_BYTES = 20_000_000
HIDDEN = re.compile(r"^### BEGIN HIDDEN TESTS\n(.*?)^### END HIDDEN TESTS\n?", re.M | re.S)
ITEM = re.compile(r"^#: ([\d.]+) points?: (.+)\n", re.M)
Item = collections.namedtuple("Item", "exercise points title visible code")
Exercise = collections.namedtuple("Exercise", "name function model points check items banned")
Result = collections.namedtuple("Result", "language flags errors")
WORDS = {
    "en": {
        "head": "# {lesson}: {student}, {got:g} of {most:g} points",
        "exercise": "\n## {name}: {got:g} of {most:g} points\n",
        "passed": "- passed ({0.points:g}): {0.title}",
        "missed": "- missed ({0.points:g}): {0.title}. `{1}`",
        "empty": "not answered",
        "alone": " (an answer cell must hold all that it needs)",
        "flags": "\nA person will look at this. It took no points away:\n",
    },
    "zh": {
        "head": "# {lesson}：{student}，{got:g} 分（满分 {most:g} 分）",
        "exercise": "\n## {name}：{got:g} 分（满分 {most:g} 分）\n",
        "passed": "- 通过（{0.points:g} 分）：{0.title}",
        "missed": "- 未通过（{0.points:g} 分）：{0.title}。`{1}`",
        "empty": "未作答",
        "alone": "（答案单元格须自带所需的全部定义和导入）",
        "flags": "\n以下几点将由教师人工查看，并未因此扣分：\n",
    },
}


def lesson_names():
    if KEPT.is_dir():
        return sorted(path.stem for path in KEPT.glob("*.ipynb"))
    from notebooks.build import lessons

    return lessons()


def cells_of(path):
    """[(kind, nbgrader's marks, source)] of a notebook file."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        (c["cell_type"], c["metadata"].get("nbgrader", {}), "".join(c["source"])) for c in cells
    ]


def read_lesson(name):
    """(source of the imports, [Exercise])."""
    if KEPT.is_dir():
        cells = cells_of(KEPT / f"{name}.ipynb")
    else:
        from notebooks.build import read_source

        cells = [
            (c.cell_type, c.metadata.get("nbgrader", {}), c.source) for c in read_source(name).cells
        ]
    code, exercises = [(marks, text) for kind, marks, text in cells if kind == "code"], []
    for (marks, model), (check_marks, check) in zip(code, code[1:]):
        if marks.get("solution"):
            exercise, function = marks["grade_id"], re.search(r"^def (\w+)", model, re.M)[1]
            banned = re.search(r"^#: banned: (.+)$", check, re.M)
            banned, shown = banned[1].split(", ") if banned else [], HIDDEN.sub("", check).strip()
            items, points = items_of(exercise, check), check_marks["points"]
            exercises.append(Exercise(exercise, function, model, points, shown, items, banned))
    return code[0][1], exercises


def items_of(exercise, check):
    """The named items of a check. What stands before the first of a part belongs to all below it."""
    shared, items, hidden = "", [], HIDDEN.search(check)
    for visible, part in ((True, HIDDEN.sub("", check)), (False, hidden[1] if hidden else "")):
        before, *pieces = ITEM.split(part)
        shared += before
        for points, title, code in zip(pieces[::3], pieces[1::3], pieces[2::3]):
            items.append(Item(exercise, float(points), title, visible, shared + code))
    return items


def read_submission(path, exercises):
    """(answers {exercise: source}, language, flags) of a file that may be anything."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return {}, "en", [f"larger than {MAX_BYTES:,} bytes, not read"]
        cells = cells_of(path)
        marked = [(str(marks["grade_id"]), text) for _, marks, text in cells if "grade_id" in marks]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}, "en", ["no notebook"]
    prose = "".join(text for kind, _, text in cells if kind == "markdown")
    language = "zh" if len(re.findall("[\u4e00-\u9fff]", prose)) > len(prose) / 10 else "en"
    texts, ids = dict(marked), [grade_id for grade_id, _ in marked]
    answers = {e.name: texts[e.name] for e in exercises if e.name in texts}
    if not answers:
        other = f"no answer of this lesson, but cells of another: {', '.join(ids[:6])}"
        return {}, language, [other if ids else "no answer cells"]
    checks = {e.name: HIDDEN.sub("", texts.get(f"{e.name}_check", "")).strip() for e in exercises}
    flags = {
        "no answer cell": [e.name for e in exercises if e.name not in answers],
        "several answer cells, the last counts": [name for name in answers if ids.count(name) > 1],
        "checks deleted, the lesson's count": [e.name for e in exercises if not checks[e.name]],
        "checks changed, the lesson's count": [
            e.name for e in exercises if checks[e.name] not in ("", e.check)
        ],
    }
    return answers, language, [f"{what}: {', '.join(who)}" for what, who in flags.items() if who]


def submissions(place, exercises):
    """{student: (answers, language, flags)} of a notebook, or of the files and folders in a folder."""
    found = {}
    for entry in [place] if place.is_file() else sorted(place.iterdir()):
        if entry.name.startswith((".", "__MACOSX")):
            continue
        books = [entry] if entry.is_file() else sorted(entry.rglob("*.ipynb"))
        read = [read_submission(b, exercises) for b in books if ".ipynb_checkpoints" not in b.parts]
        read = (
            [one for one in read if one[0]] or read or [({}, "en", ["no notebook in this folder"])]
        )
        if len(read) > 1:
            read[0][2].append(f"{len(read)} notebooks, the first counts")
        student = entry.stem if entry.is_file() else entry.name
        found[entry.name if student in found else student] = read[0]
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
    sys.path[:] = [folder for folder in sys.path if folder != ".."]  # another folder in a sandbox
    items = [item for e in exercises for item in e.items if item.visible or not visible]
    numbers = {
        e.name: [n for n, item in enumerate(items) if item.exercise == e.name] for e in exercises
    }
    flags, tasks = {student: [*one[2]] for student, one in read.items()}, {}
    for student, (answers, _, _) in read.items():
        for e in (e for e in exercises if e.name in answers):
            answer, checks = answers[e.name], [(n, items[n].code) for n in numbers[e.name]]
            flags[student] += [
                f"{e.name} {flag}" for flag in gate.flags(answer, e.model, names, e.banned)
            ]
            tasks[student, e.name] = sandbox.examine(
                names, answer, e.function, checks, seed, names["tf"].constant
            )
    errors = {student: dict.fromkeys(items, "your turn") for student in read}
    for (student, exercise), (messages, why) in sandbox.run(tasks, seconds).items():
        done = {message["item"]: message["error"] for message in messages if "item" in message}
        if len(done) < len(numbers[exercise]):
            why = why or "the process ended early"
        told = [message["flag"] for message in messages if "flag" in message] + [why] * bool(why)
        flags[student] += [f"{exercise} {flag}" for flag in told]
        errors[student] |= {items[n]: done.get(n, why) for n in numbers[exercise]}
    return items, {s: Result(read[s][1], list(dict.fromkeys(flags[s])), errors[s]) for s in read}


def score(items, result, exercise=None):
    """(points reached, points there are) of one exercise, or of all."""
    mine = [item for item in items if exercise in (None, item.exercise)]
    return sum(i.points for i in mine if not result.errors[i]), sum(i.points for i in mine)


def feedback(lesson, student, items, result):
    """A student's page in the language of the notebook, as Markdown."""
    words = WORDS[result.language]
    got, most = score(items, result)
    lines = [words["head"].format(lesson=lesson, student=student, got=got, most=most)]
    for exercise in dict.fromkeys(item.exercise for item in items):
        got, most = score(items, result, exercise)
        lines.append(words["exercise"].format(name=exercise, got=got, most=most))
        for item in (item for item in items if item.exercise == exercise):
            error = result.errors[item]
            if error.endswith("your turn"):
                error = words["empty"]
            elif error.startswith("NameError"):
                error += words["alone"]
            lines.append(words["missed" if error else "passed"].format(item, error))
    if result.flags:
        lines += [words["flags"], *(f"- {flag}" for flag in result.flags)]
    return "\n".join(lines) + "\n"


def missed(items, results):
    """What the class missed, the most frequent first, as a Markdown table."""
    counts = [
        (sum(bool(result.errors[item]) for result in results.values()), item) for item in items
    ]
    lines = ["| check | points | missed by |", "|---|---|---|"]
    for count, item in sorted(counts, key=lambda row: -row[0]):
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
            points = [f"{score(items, result, exercise)[0]:g}" for exercise in (None, *exercises)]
            table.writerow([student, *points, "; ".join(result.flags)])
            page = feedback(lesson, student, items, result)
            (folder / "feedback" / f"{student}.md").write_text(page, encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m notebooks.grade", description="Grades a lesson."
    )
    parser.add_argument("lesson", metavar="LESSON", help="a lesson, or the start of its name: 02")
    parser.add_argument(
        "submissions", metavar="SUBMISSIONS", type=Path, help="a folder, or one notebook"
    )
    parser.add_argument("--visible", action="store_true", help="only the checks that students see")
    parser.add_argument("--seed", type=int, default=0, help="of hidden values (default: 0)")
    parser.add_argument("--seconds", type=float, default=20, help="for an exercise (default: 20)")
    parser.add_argument("--out", type=Path, help="folder of the grades (default: grades/LESSON)")
    options = parser.parse_args(arguments)
    lesson, *more = [name for name in lesson_names() if name.startswith(options.lesson)] or [None]
    if more or not lesson:
        names = ", ".join(lesson_names())
        parser.error(f"LESSON must be the start of one of {names}. Received: {options.lesson}.")
    if not options.submissions.exists():
        parser.error(
            f"SUBMISSIONS must be a notebook or a folder. Received: {options.submissions}."
        )
    if not hasattr(os, "fork"):
        parser.error("Grading forks processes, which Windows cannot do. Use Linux, macOS or WSL.")
    if not __debug__:
        parser.error("Checks are assertions, which `python -O` leaves out. Leave the -O out.")
    items, results = grade(
        lesson, options.submissions, options.seed, options.visible, options.seconds
    )
    if options.submissions.is_file():
        print(*(feedback(lesson, student, items, result) for student, result in results.items()))
        return 0
    folder = options.out or Path("grades") / lesson
    write(folder, lesson, items, results)
    print(f"{folder / 'grades.csv'}: {len(results)} submissions\n\n{missed(items, results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
