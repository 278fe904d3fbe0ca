"""What leaves the clone: a kit for students, a course for nbgrader, pages for a school's server."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from keras_compress.files import atomic_write
from notebooks.build import FOLDER, read_source, student_version, write

CLONE = FOLDER.parent
NBGRADER = """import os

c = get_config()
c.CourseDirectory.course_id = "keras_compress"
c.ExecutePreprocessor.timeout = 600
c.ClearSolutions.code_stub = {{"python": 'raise NotImplementedError("your turn")'}}
os.environ["KERAS_COMPRESS_FAST"] = "1"
os.environ["PYTHONPATH"] = {clone!r}
"""


def kit(folder, names):
    """What students get; it works outside of this clone."""
    shutil.copytree(FOLDER / "kit", folder, dirs_exist_ok=True)
    (folder / "notebooks").mkdir(exist_ok=True)
    for file in ("__init__.py", "gate.py", "grade.py", "sandbox.py"):
        shutil.copy(FOLDER / file, folder / "notebooks")
    for name in names:
        for path in (f"{name}.ipynb", f"{name}.zh.ipynb", f"notebooks/lessons/{name}.ipynb"):
            write(folder / path, student_version(read_source(Path(path).stem)))
    shutil.copy(CLONE / "requirements.txt", folder)
    with tempfile.TemporaryDirectory() as place:  # building leaves files behind
        for room in ("keras_compress", "mobile_export"):
            unwanted = shutil.ignore_patterns("__pycache__", "node_modules")
            shutil.copytree(CLONE / room, Path(place, room), ignore=unwanted)
        for file in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(CLONE / file, place)
        wheel = "pip wheel --quiet --no-deps --no-build-isolation --wheel-dir".split()
        subprocess.run([sys.executable, "-m", *wheel, folder, place], check=True)


def course(folder, names):
    """A course for nbgrader, whose config tells it where the package is."""
    for twin in (twin for name in names for twin in (name, f"{name}.zh")):
        write(folder / "source" / twin / f"{twin}.ipynb", read_source(twin))
    config = NBGRADER.format(clone=str(CLONE))
    (folder / "nbgrader_config.py").write_text(config, encoding="utf-8")


def site(folder, names):
    """All lessons as pages, and index.html."""
    from nbconvert import HTMLExporter

    lines = [
        "<!doctype html><meta charset=utf-8><title>keras_compress</title><h1>keras_compress</h1><ul>"
    ]
    for name in names:
        links = []
        for twin, language in ((name, "English"), (f"{name}.zh", "中文")):
            page, _ = HTMLExporter().from_filename(str(FOLDER / f"{twin}.ipynb"))
            with atomic_write(folder / f"{twin}.html") as file:
                file.write(page)
            links.append(f'<a href="{twin}.html">{language}</a>')
        title = read_source(name).cells[0].source.splitlines()[0].lstrip("# ")
        lines.append(f"<li>{title}: {', '.join(links)}</li>")
    with atomic_write(folder / "index.html") as file:
        file.write("\n".join([*lines, "</ul>", ""]))
