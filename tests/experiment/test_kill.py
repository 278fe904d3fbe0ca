"""Whole runs in processes of their own: killed without warning, and two at work in one folder."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests import samples
from tests.attack.kills import TIMES, TIMES_OF_FILES
from tests.support import ROOT


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("killed")
    samples.data(place / "data")
    samples.model(place / "bert", tuned=False)
    head = (
        f'formats = ["float32"]\nsequence_length = 16\ndatasets = ["{place / "data"}"]\nseeds = [3]'
    )
    samples.recipe(
        place / "small.toml",
        ("predecessor", "finetune", "minilm"),
        ("theseus-1", "theseus", "predecessor", "num_layers = 1"),
        ("layers-1", "layers", "predecessor", 'num_layers = 1\nrole = "baseline"'),
        training="epochs = 1\ncheckpoint_every = 1",
        head=head,
    )
    return place


def start(*arguments):
    command = [sys.executable, "-m", "keras_compress", "run", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def kill_when(process, appears, pattern):
    while process.poll() is None and not [*appears.glob(pattern)]:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, f"{pattern} did not appear: {process.stderr.read()}"


def finish(process):
    said = process.communicate()[1]
    assert process.returncode == 0, said[-3000:]
    return said


def cells(folder):
    """{name: cell}, without what a clock says."""
    made = {}
    for path in (folder / "cells").glob("*.json"):
        cell = {k: v for k, v in json.loads(path.read_text("utf-8")).items() if k not in TIMES}
        for file in cell.get("files", ()):
            for key in TIMES_OF_FILES:
                file.pop(key)
        made[path.name] = cell
    return made


@pytest.mark.slow
def test_a_run_killed_three_times_ends_like_one_that_was_not(place):
    settings = [place / "small.toml", "--from", place / "bert"]
    finish(start(*settings, "--out", place / "whole"))
    killed = place / "killed-run"
    # in the middle of Theseus' first stage; after its cell; and while the last model is made
    for number, pattern in enumerate(
        ("checkpoints/theseus-1/*/*.index", "cells/*theseus*.json", "checkpoints/layers-1/*/*")
    ):
        again = ["--resume"] if number else settings
        kill_when(start(*again, "--out", killed), killed, pattern)
    assert "there already" in finish(start("--resume", "--out", killed))
    assert cells(killed) == cells(place / "whole")
    for part in ("models/*/model.safetensors", "models/*/float32.tflite"):
        whole, resumed = (
            {p.parent.name: p.read_bytes() for p in folder.glob(part)}
            for folder in (place / "whole", killed)
        )
        assert len(whole) == 3 and whole == resumed


@pytest.mark.slow
def test_two_processes_in_one_folder_make_each_cell_once_and_whole(place):
    finish(
        start(
            place / "small.toml",
            "--from",
            place / "bert",
            "--out",
            place / "one",
            "--only",
            "predecessor",
        )
    )
    both = [
        start("--resume", "--out", place / "one", "--only", name)
        for name in ("theseus-1", "layers-1")
    ]
    for process in both:
        finish(process)
    made = cells(place / "one")
    whole = cells(place / "whole") if (place / "whole").exists() else made
    assert {*made} == {*whole} and made == whole
