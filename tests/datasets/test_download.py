"""Download against a server on the loopback interface: whole, cut off, wrong, missing."""

import http.server
import threading

import pytest

from keras_compress.datasets import download as module
from keras_compress.datasets.download import download, fetch
from keras_compress.datasets.readers import read_folder

FILES = {"train": "1 a  good film\n0 a bad film\n1 fine\n", "dev": "0 no\n", "test": "1 yes\r\n"}


class Handler(http.server.BaseHTTPRequestHandler):
    files, cut = {}, None

    def do_GET(self):
        content = self.files.get(self.path.split("/")[-1])
        if content is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    Handler.files = {f"x.{split}": text.encode() for split, text in FILES.items()}
    Handler.cut = None
    monkeypatch.setenv("no_proxy", "*")
    source = {**module.SOURCES["sst2"], "origin": "who/what/commit", "files": {}}
    for split, text in FILES.items():
        rows = [[line[0], " ".join(line[2:].split())] for line in text.splitlines()]
        source["files"][f"data/x.{split}"] = {
            "split": split,
            "rows": len(rows),
            "sha256": module.rows_hash(rows),
        }
    monkeypatch.setitem(module.SOURCES, "sst2", source)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_download_gives_a_folder_that_reads(tmp_path, server):
    folder = download("sst2", tmp_path, server)
    data = read_folder(folder)
    assert folder == tmp_path / "sst2" and data.labels == ("negative", "positive")
    assert data.train.texts == ["a good film", "a bad film", "fine"] and data.train.labels == [
        1,
        0,
        1,
    ]
    assert "who/what/commit" in (folder / "SOURCE.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["sst2"]
    assert download("sst2", tmp_path, "http://127.0.0.1:9") == folder  # there already: no request


def test_a_cut_connection_leaves_nothing_behind(tmp_path, server):
    Handler.cut = 12
    with pytest.raises(OSError, match="could not be fetched .*12 bytes.* Run the command"):
        download("sst2", tmp_path, server)
    assert not list(tmp_path.iterdir())
    Handler.cut = None
    read_folder(download("sst2", tmp_path, server))


@pytest.mark.parametrize("content", [b"1 another film\n", b"<html>\n", b"\xff\xfe"])
def test_wrong_content_is_refused(tmp_path, server, content):
    Handler.files["x.dev"] = content
    with pytest.raises(OSError, match="x.dev: the content must have 1 rows with SHA-256"):
        download("sst2", tmp_path, server)
    assert not list(tmp_path.iterdir())


def test_errors(tmp_path, server):
    with pytest.raises(OSError, match="nothing: could not be fetched .*404"):
        fetch(f"{server}/nothing")
    with pytest.raises(OSError, match="could not be fetched"):
        fetch("http://127.0.0.1:9/x")
    with pytest.raises(ValueError, match="one of sst2, mrpc, tnews. Received: 'imdb'"):
        download("imdb", tmp_path)


@pytest.mark.parametrize(
    "name, content, rows",
    [
        ("sst2", "1 a  film . 1\r\n\r\n0 no\n", [["1", "a film . 1"], ["0", "no"]]),
        (
            "mrpc",
            'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t70\t71\tHe said "yes".\tYes.',
            [["1", 'He said "yes".', "Yes."]],
        ),
        ("tnews", "\ufeff以色列\tnews_military\n", [["9", "以色列"]]),
        ("sst2", "<html>", []),
    ],
)
def test_rows_of_the_three_sources(name, content, rows):
    assert module.read_rows(content.encode(), module.SOURCES[name]) == rows


def test_hold_out_is_deterministic_and_takes_texts_that_occur_once():
    rows = [["0", f"text {i % 90}"] for i in range(100)]  # texts 0-9 occur twice
    train, test = module.hold_out(rows, 20)
    assert (
        len(train) == 80
        and len(test) == 20
        and not {tuple(row) for row in train} & {tuple(row) for row in test}
    )
    assert not {f"text {i}" for i in range(10)} & {row[1] for row in test}
    assert module.hold_out(rows[::-1], 20) == (train, test)  # whatever the order in the file


@pytest.mark.parametrize("bound", [{"BYTES": 10}, {"SECONDS": -1}])
def test_a_download_has_bounds(server, monkeypatch, bound):
    for name, value in bound.items():
        monkeypatch.setattr(module, name, value)
    with pytest.raises(OSError, match="x.train: could not be fetched .more than"):
        fetch(f"{server}/x.train")
