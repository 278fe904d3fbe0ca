"""The web page: its server, and, in headless Chromium, that it shows what Python gives, tests itself, and asks nobody else."""

import json
import shutil
import subprocess
import threading
import zipfile
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest

from keras_compress.bert.task_model import TaskModel
from mobile_export import serve
from mobile_export.contract import write_vectors
from mobile_export.convert import export, exported_model
from tests.mobile_export.conftest import LENGTH, tiny

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
LABELS = ("<i id=evil>red</i>", "green", "蓝")
TEXTS = ["Wá w\u200bb\u00a0wc\tw\ue000e", "wd, we! <b id=evil>wf</b>", "WZ", " ".join(["wx"] * 40)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder of a run with one model, and the model."""
    task_model = TaskModel(tiny().config, tiny().tokenizer, "classification", LABELS, seed=3)
    folder = tmp_path_factory.mktemp("web")
    export(
        task_model,
        folder / "models" / "a b",
        ("float32", "int8"),
        sequence_length=LENGTH,
        allow_drift=True,
    )
    (folder / "models" / "vocab.txt").write_text("secret", encoding="utf-8")
    (folder / "models" / "bare.tflite").write_bytes(b"\0\0\0\0TFL3, without metadata")
    outside = tmp_path_factory.mktemp("outside") / "float32.tflite"
    shutil.copy(folder / "models" / "a b" / "float32.tflite", outside)
    (folder / "models" / "link.tflite").symlink_to(outside)
    return folder, task_model


def test_a_damaged_file_is_not_served(models, tmp_path):
    shutil.copytree(models[0] / "models" / "a b", tmp_path / "files")
    path = tmp_path / "files" / "int8.tflite"
    path.write_bytes(path.read_bytes().replace(b"red", b"rad"))
    with pytest.raises(ValueError, match="int8.tflite: an exported file must be as it was written"):
        serve.server(tmp_path / "files", 0)


def running(web):
    threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
    return web


@pytest.fixture
def get(models, tmp_path, monkeypatch):
    """What a server with stand-ins for the node modules answers: path -> (status, type, body)."""
    for package in serve.PACKAGES:
        (tmp_path / "web" / package / "wasm").mkdir(parents=True)
        for name in ("text_bundle.mjs", "wasm/text.wasm", "README.md"):
            (tmp_path / "web" / package / name).write_bytes(b"x")
    for name in serve.PAGE:
        shutil.copy(serve.WEB / name, tmp_path / "web")
    (tmp_path / "secret.js").write_text("secret", encoding="utf-8")
    monkeypatch.setattr(serve, "WEB", tmp_path / "web")

    def get(path, **headers):
        connection = HTTPConnection(*web.server_address, timeout=10)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read()

    with running(serve.server(models[0], 0)) as web:
        yield get
        web.shutdown()


def test_what_is_served(get, models):
    status, kind, body = get("/models.json")
    listed = json.loads(body)
    assert (status, kind) == (200, "application/json")
    names = ["a b/float32", "a b/float32 · MediaPipe", "a b/int8", "a b/int8 · MediaPipe"]
    assert [model["name"] for model in listed] == names
    assert [model["engine"] for model in listed] == ["LiteRT", "MediaPipe"] * 2
    for model in listed:
        status, kind, body = get("/" + model["path"])
        name = model["name"].removeprefix("a b/").removesuffix(" · MediaPipe") + ".tflite"
        assert (
            body == (models[0] / "models" / "a b" / name).read_bytes()
            and len(body) == model["bytes"]
        )
        assert (status, kind) == (200, "application/octet-stream")
    for path, wanted in (
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/style.css?v=1", "text/css; charset=utf-8"),
        ("/files/models/a%20b/model.json", "application/json"),
        ("/files/models/a%20b/vocab.txt", "text/plain; charset=utf-8"),
        (f"/{serve.PACKAGES[0]}/text_bundle.mjs", "text/javascript; charset=utf-8"),
        (f"/{serve.PACKAGES[1]}/wasm/text.wasm", "application/wasm"),
    ):
        assert get(path)[:2] == (200, wanted)


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.js",
        "/%2e%2e/secret.js",
        "/..%2fsecret.js",
        "//etc/passwd",
        "/files/../../../secret.js",
        "/%00",
        "/files/models/vocab.txt",
        "/files/models/bare.tflite",
        "/files/",
        f"/{serve.PACKAGES[2]}/README.md",
        "/package.json",
    ],
)
def test_nothing_else_is_served(get, path):
    assert get(path)[0] == 404


def test_other_sites_cannot_ask(get):
    assert (
        get("/models.json", Host="a.site.example")[0] == 403
    )  # a name that was made to mean this machine


def test_a_file_that_has_gone_is_not_found(get):
    (serve.WEB / "style.css").unlink()
    assert get("/style.css")[0] == 404


def test_only_this_machine_and_clear_refusals(get, models, tmp_path, caplog):
    with serve.server(models[0], 0) as web:
        assert "not on the page, as no model.json tells of it: " in caplog.text
        assert "bare.tflite" in caplog.text and "int8.tflite" not in caplog.text
        host, port = web.server_address
        assert host == "127.0.0.1"
        with pytest.raises(ValueError, match=f"`port` must be free, .* Received: {port} .*--port"):
            serve.server(models[0], port)
        with pytest.raises(
            ValueError, match="`port` must be free, and 0 to 65535. Received: 99999 "
        ):
            serve.server(models[0], 99999)
    with pytest.raises(
        ValueError,
        match="must hold .tflite files beside their model.json, or with .* Received: .*nothing",
    ):
        serve.server(tmp_path / "nothing")
    shutil.rmtree(serve.WEB / serve.PACKAGES[0])
    with pytest.raises(
        ValueError, match="needs its node modules.* lacks .*litertjs/core. .* run `npm ci` in "
    ):
        serve.server(models[0], 0)


def test_what_is_ignored_is_not_in_the_repository():
    found = subprocess.run(
        ["git", "ls-files", "-ci", "--exclude-standard"],
        cwd=serve.WEB,
        capture_output=True,
        text=True,
    )
    if found.returncode:
        pytest.skip("not a git clone")
    assert found.stdout == ""


def test_the_lockfile_names_no_registry():
    folder = Path(serve.__file__).parent / "web"
    packages = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert packages.keys() == {
        "",
        *serve.PACKAGES,
        "node_modules/playwright-core",
    }
    assert all(
        ("integrity" in package and "resolved" not in package) or not name
        for name, package in packages.items()
    )
    code = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.js"))
    assert "innerHTML" not in code and "eval(" not in code


def browse(folder, texts, **asked):
    """What drive_page.mjs finds on the page; what else may be asked of it is said there."""
    if not CHROMIUM or not shutil.which("node"):
        pytest.skip("needs chromium and node (bash .ci/system installs them)")
    needed = ("node_modules/playwright-core", *serve.PACKAGES)
    if not all((serve.WEB / name).is_dir() for name in needed):
        pytest.skip("needs node modules: npm ci in mobile_export/web")
    with running(serve.server(folder, 0)) as web:
        address = "http://{}:{}/".format(*web.server_address)
        asked = {
            "address": address,
            "web": str(serve.WEB),
            "chromium": CHROMIUM,
            "texts": texts,
            **asked,
        }
        driver = Path(__file__).parent / "drive_page.mjs"
        found = subprocess.run(
            ["node", driver, json.dumps(asked)], capture_output=True, text=True, timeout=240
        )
        web.shutdown()
    assert found.returncode == 0, found.stderr
    return address, json.loads(found.stdout)


@pytest.mark.parametrize("engine", ["", " · MediaPipe"])
def test_the_page_shows_what_python_gives(models, engine):
    folder, task_model = models
    files = [f"a b/{name}{engine}" for name in ("float32", "int8")]
    address, page = browse(folder, TEXTS, choose=files if engine else [])
    assert (
        page["errors"] == []
        and page["markup"] == 0
        and page["overflow"] <= 0
        and page["chinese"].startswith("两个模型")
    )
    assert all(request.startswith(address) for request in page["requests"])
    assert bool(page["blocked"]) == bool(engine)  # MediaPipe's own; LiteRT.js asks nobody
    assert not any(request.startswith(address) for request in page["blocked"])
    for place, name, tolerance in ((0, "float32", 1e-5), (1, "int8", 2e-2)):
        path = folder / "models" / "a b" / f"{name}.tflite"
        expected = exported_model(path, task_model).predict(TEXTS)
        for shown, probabilities in zip(page["shown"], expected):
            panel = shown["models"][place]
            assert (
                panel["name"] == f"a b/{name}{engine}"
                and panel["size"] == f"{path.stat().st_size / 1e6:.1f} MB"
            )
            scores = {label: value for label, value, _ in panel["scores"]}
            assert scores.keys() == {*LABELS} and panel["median"].endswith(" ms")
            np.testing.assert_allclose(
                [scores[label] for label in LABELS], probabilities, atol=tolerance
            )
            assert [score for _, score, _ in panel["scores"]] == sorted(
                scores.values(), reverse=True
            )
    for shown in page["shown"]:
        first, second = (panel["scores"][0][0] for panel in shown["models"])
        assert shown["verdict"] == (
            "Both models say the same." if first == second else "The models disagree."
        )


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A folder with models of the tasks that MediaPipe does not take, two of them in two lengths; {task: model}."""
    folder, found = tmp_path_factory.mktemp("others"), {}
    for task, length, form in (
        ("tagging", (6, LENGTH), "float32"),
        ("matching", LENGTH, "float32"),
        ("multilabel", (6, LENGTH), "int4"),
        ("regression", LENGTH, "int8"),
    ):
        labels = ("score",) if task == "regression" else LABELS
        found[task] = TaskModel(tiny().config, tiny().tokenizer, task, labels, seed=3)
        settings = {"sequence_length": length, "allow_drift": True, "parity_texts": 2}
        export(found[task], folder / task, (form,), **settings)
        write_vectors(folder / task, found[task])
    return folder, found


def test_taggers_pairs_and_several_lengths_on_the_page(others):
    folder, found = others
    texts = ["wa wb wc", "wa wb wc wd we wf wg", ["wa wb", "wc"]]
    files = ["tagging/float32", "matching/float32"]
    address, page = browse(folder, texts, choose=files, test=True)
    assert page["errors"] == page["blocked"] == []
    assert all(request.startswith(address) for request in page["requests"])
    for shown, length in zip(page["shown"], ["6", "16"]):  # the shortest that a text fits
        assert shown["models"][0]["length"] == length and shown["verdict"] == ""
    ((words, tags), *_) = found["tagging"].predict(texts[:1], max_length=LENGTH)
    rows = page["shown"][0]["models"][0]["scores"]
    assert [(word, told.split(" · ")[0]) for word, _, told in rows] == [*zip(words, tags)]
    (expected,) = found["matching"].predict([tuple(texts[2])], max_length=LENGTH)
    scores = {label: value for label, value, _ in page["shown"][2]["models"][1]["scores"]}
    np.testing.assert_allclose([scores[label] for label in LABELS], expected, atol=1e-5)
    for told in page["tested"][:2]:
        assert told.startswith("Self-test passed. Texts with the same ids: 50 / 50; largest")
        assert told.endswith("(allowed: 1.0e-5); same answer: 100.0 %")
    assert all(told.startswith("自检通过。id 相同的文本：50 / 50；") for told in page["tested"][2:])


def test_int4_names_and_numbers_on_the_page(others):
    folder, found = others
    texts, files = ["wa wb wc", "wa wb wc wd we wf wg"], ["multilabel/int4", "regression/int8"]
    _, page = browse(folder, texts, choose=files, test=True)
    assert page["errors"] == page["blocked"] == []
    expected = [
        exported_model(folder / f"{file}.tflite", found[file.partition("/")[0]]).predict(texts)
        for file in files
    ]
    for number, (shown, length) in enumerate(zip(page["shown"], ["6", "16"])):
        names, numbers = shown["models"]
        assert names["length"] == length and numbers["length"] == "16"
        scores = {label: value for label, value, _ in names["scores"]}
        given = [scores[label] for label in LABELS]
        np.testing.assert_allclose(given, expected[0][number], atol=2e-2)
        ((label, _, told),) = numbers["scores"]
        assert label == "score"
        np.testing.assert_allclose(float(told), np.ravel(expected[1])[number], atol=5e-2)
    for told in page["tested"][:2]:
        assert told.startswith("Self-test passed. Texts with the same ids: 50 / 50; largest")
        assert "same answer" not in told


def test_a_self_test_that_fails_is_seen_on_the_page(others, tmp_path):
    shutil.copytree(others[0], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tagging" / "parity.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told["files"]["float32.tflite"]["outputs"][1][0][0] += 0.25
    told["inputs"][str(LENGTH)][2]["ids"][1] = 7
    path.write_text(json.dumps(told), encoding="utf-8")
    path = tmp_path / "matching" / "parity.json"
    path.write_bytes(path.read_bytes()[:500])
    _, page = browse(tmp_path, [], choose=["tagging/float32", "matching/float32"], test=True)
    first, second, *chinese = page["tested"]
    assert first.startswith(
        "Self-test FAILED: do not use this file here. Texts with the same ids: 49"
    )
    assert "largest difference of an output: 2.5e-1" in first
    assert second.startswith("Self-test FAILED") and second.endswith("parity.json: damaged")
    assert all(told.startswith("自检未通过：") for told in chinese)


def test_a_file_that_does_not_load_is_said_on_the_page(models, tmp_path):
    shutil.copy(models[0] / "models" / "a b" / "float32.tflite", tmp_path)
    with zipfile.ZipFile(tmp_path / "broken.tflite", "w") as archive:
        archive.writestr("vocab.txt", "x")
    _, page = browse(tmp_path, ["wa"])
    left, right = page["shown"][0]["models"]
    assert (
        left["scores"]
        and right["name"] == "broken"
        and right["state"].startswith("This file does not load: ")
    )
    assert right["scores"] == [] and page["shown"][0]["verdict"] == ""
    _, page = browse(tmp_path, ["wa"], change="broken")  # while the first model is still on its way
    for panel in page["shown"][0]["models"]:
        assert panel["name"] == "broken" and panel["scores"] == []
        assert panel["state"].startswith("This file does not load: ")
