"""Edited files and requests: what cannot be read is one error that names the file, within 5 seconds, and no file elsewhere is opened."""

import contextlib
import json
import os
import shutil
import socket
import sys
import threading
import time
import warnings
import zipfile
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_compress.bert.task_model import TaskModel
from keras_compress.datasets import readers
from keras_compress.experiment import recipe
from mobile_export import serve
from mobile_export.ort import open_model
from tests import samples
from tests.attack import damage
from tests.bert import tiny

SECONDS = 5
ELSEWHERE = ("/etc", "/root", "/home", "/tmp")  # where a user's files are
PIECES = (
    '\0|\r|"|\t|\n|,|.|..|/../|%2e%2e/|\x1b[31m|NaN|-1|1e400|0.5|true|null|[]|{}|{"a": 1}|[["a"]]|'
    '999999999999999999999999999999|B-x|label|text_a|灯|""|"x"|= 5|= [5]|= -1|= nan|= "x"|\n[[step]]\n|'
    'include = "x"\n|name = ""\n|data = 5\n|//[|HTTP/9.9|Host: x\r\n|\r\n\r\n|/etc/passwd|http://['
).split("|")
PIECES = [*map(str.encode, PIECES), b"\xff", b"\xef\xbb\xbf", b"[" * 5000, b"a" * 70_000]
EDITS = st.lists(
    st.tuples(
        st.sampled_from("insert replace delete cut repeat".split()),
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(PIECES) | st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=3,
)


def edited(content, edits):
    for kind, where, piece in edits:
        place = int(where * len(content))
        before, after = content[:place], content[place:]
        content = {
            "insert": before + piece + after,
            "replace": before + piece + after[len(piece) :],
            "delete": before + after[len(piece) :],
            "cut": before,
            "repeat": before + after[:40] + after,
        }[kind]
    return content


opened = None  # paths, while something is read


@sys.addaudithook
def _note(event, arguments):
    if opened is not None and event == "open" and isinstance(arguments[0], str | bytes):
        opened.append(
            str(Path(arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]))
        )


def check(folder, read):
    """Reads; asserts what the module says."""
    global opened
    started, opened = time.monotonic(), []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except (ValueError, OSError) as error:
        assert "\n" not in str(error) and len(str(error)) < 5000, f"{error!r:.2000}"
        assert str(folder) in str(error), f"{error!r:.2000}"
    finally:
        paths, opened = opened, None
    assert time.monotonic() - started < SECONDS
    outside = [path for path in paths if path.startswith(ELSEWHERE) and not path.startswith(OWN)]
    assert not [path for path in outside if not path.startswith(str(folder))], outside


OWN = (str(Path(__file__).parents[1]), sys.prefix, sys.base_prefix)


class Files(dict):
    pass


def files_of(folder, *endings):
    found = sorted(path for path in folder.rglob("*") if path.suffix in endings)
    files = Files((path, path.read_bytes()) for path in found)
    files.last = found[0]  # that was edited
    return files


def one_file_edited(files, choice, edits):
    """Writes one of the files, edited, and the one before as it was; returns its folder."""
    path = [*files][choice % len(files)]
    files.last.write_bytes(files[files.last])
    path.write_bytes(edited(files[path], edits))
    files.last = path
    return path.parent


def data_folders(place):
    """Data sets of every task, and a table of commas."""
    for task in tiny.LABELS:
        samples.data(place / task, task, numbers=(6, 4, 4))
    shutil.copytree(place / "classification", place / "csv")
    for path in (place / "csv").glob("*.tsv"):
        path.with_suffix(".csv").write_text(path.read_text("utf-8").replace("\t", ","), "utf-8")
        path.unlink()
    lines = [{"label": ["a", "b"][k % 2], "text": f"the cat {k}"} for k in range(6)]
    for number, name in enumerate(["train", "dev"]):
        text = "\n".join(json.dumps({**line, "n": number}) for line in lines)
        (place / "json").mkdir(exist_ok=True)
        (place / "json" / f"{name}.jsonl").write_text(text)
    files = files_of(place, ".tsv", ".csv", ".jsonl", ".txt")

    def attempt(choice, edits):
        folder = one_file_edited(files, choice, edits)
        check(folder, lambda: readers.read_folder(folder))

    return attempt


def recipe_files(place):
    """The package's recipes, and one that includes another."""
    texts = [path.read_bytes() for path in sorted(recipe.FOLDER.glob("*.toml"))]
    texts = [text for text in texts if len(text) < 2500]

    def attempt(choice, edits):
        path = place / "own.toml"
        path.write_bytes(edited(texts[choice % len(texts)], edits))
        check(path, lambda: recipe.read_recipe(path))

    return attempt


def model_folders(place):
    """Saved models without their seal, as earlier versions wrote them."""
    for task in ("classification", "multilabel"):
        folder = samples.model(place / task, task, tuned=True)
        stored = json.loads((folder / "config.json").read_text("utf-8"))
        del stored["sha256"]
        (folder / "config.json").write_text(json.dumps(stored))
    files = files_of(place, ".json", ".txt", ".csv", ".safetensors")

    def attempt(choice, edits):
        folder = one_file_edited(files, choice, edits)
        check(folder, lambda: TaskModel.load(folder))

    return attempt


def exported_files(place):
    """An exported file; a damaged one without its stamp could end the process, so that none is made."""
    folder, _ = damage.exported(place)
    ((path, content),) = files_of(folder, ".tflite").items()

    def attempt(choice, edits):
        path.write_bytes(edited(content, edits))
        check(path, lambda: open_model(path))

    return attempt


def served(place):
    """A server of a folder with one file and one symbolic link out of it, and the list of what failed in it."""
    for package in serve.PACKAGES:
        (place / "web" / package).mkdir(parents=True)
    (place / "web" / "index.html").write_text("page")
    (place / "shown").mkdir()
    with zipfile.ZipFile(place / "shown" / "x.tflite", "w") as file:
        file.writestr("labels.txt", "no")
    (place / "secret.tflite").write_text("SECRET")
    (place / "shown" / "link.tflite").symlink_to(place / "secret.tflite")
    (place / "shown" / "loop.tflite").symlink_to("loop.tflite")
    os.mkfifo(place / "shown" / "pipe.tflite")  # whose reader waits for ever
    kept, serve.WEB, failed = serve.WEB, place / "web", []
    web = serve.server(place / "shown", 0)
    serve.WEB = kept
    web.handle_error = lambda *_: failed.append(sys.exc_info()[1])
    threading.Thread(target=web.serve_forever, daemon=True).start()
    return web, failed


def requests(place):
    """Bytes that a client sends to `serve`, which then says no more."""
    web, failed = served(place)
    paths = (
        "/",
        "/models.json",
        "/files/x.tflite",
        "/files/../secret.tflite",
        "/files/link.tflite",
    )

    def attempt(choice, edits):
        request = f"GET {paths[choice % len(paths)]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        with socket.create_connection(web.server_address, timeout=SECONDS) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(edited(request, edits))
                with contextlib.suppress(OSError):  # the server has closed already
                    client.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
                assert b"SECRET" not in answer
        assert not [error for error in failed if not isinstance(error, ConnectionError)], failed

    return attempt


# Inputs in the default suite, and under the marker slow: 500, and 10,000
TARGETS = {
    data_folders: (210, 5000),
    recipe_files: (90, 400),
    model_folders: (20, 60),
    exported_files: (60, 540),
    requests: (120, 4000),
}


def fuzz(target, place, number):
    attempt = target(place)
    attempt(0, [])  # what is imported at first use takes its time
    quiet = settings(
        max_examples=number,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[*HealthCheck],
    )
    quiet(given(st.integers(0, 100), EDITS)(attempt))()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_fuzzing(target, tmp_path):
    fuzz(target, tmp_path, TARGETS[target][0])


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_fuzzing_at_length(target, tmp_path):
    fuzz(target, tmp_path, TARGETS[target][1])


def test_a_client_that_stops_in_the_middle_is_not_waited_for(tmp_path):
    web, _ = served(tmp_path)
    assert web.RequestHandlerClass.timeout == 30
    web.RequestHandlerClass.timeout = 0.2
    with socket.create_connection(web.server_address, timeout=SECONDS) as client:
        client.sendall(b"GET / HT")
        assert client.recv(99) == b""


def test_a_link_that_took_the_place_of_a_served_file_is_not_followed(tmp_path):
    web, _ = served(tmp_path)
    address = f"http://127.0.0.1:{web.server_address[1]}/files/x.tflite"
    assert urlopen(address).status == 200
    (tmp_path / "shown" / "x.tflite").unlink()
    (tmp_path / "shown" / "x.tflite").symlink_to(tmp_path / "secret.tflite")
    with pytest.raises(HTTPError, match="404"):
        urlopen(address)
