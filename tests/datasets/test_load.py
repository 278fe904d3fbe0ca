"""`datasets.load`: names, folders, files, and the errors."""

import subprocess
import sys

import pytest

from keras_compress import datasets


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.tsv").write_text(f"label\ttext\n0\tone {split}\n1\ttwo {split}\n")
    (tmp_path / "labels.txt").write_text("a\nb\n")
    return tmp_path


def test_a_folder_a_file_and_a_downloaded_set(folder, monkeypatch, tmp_path_factory):
    assert (
        datasets.load(folder).task
        == datasets.load(str(folder), task="classification").task
        == "classification"
    )
    assert datasets.load(folder / "labels.txt").task == "unlabelled"
    data = tmp_path_factory.mktemp("data")
    monkeypatch.setattr(datasets, "DATA_FOLDER", data)
    with pytest.raises(
        ValueError, match="not on this machine yet.*python -m keras_compress data download sst2"
    ):
        datasets.load("sst2")
    (data / "downloads").mkdir()
    folder.rename(data / "downloads" / "sst2")
    assert datasets.load("sst2").name == "sst2"


def test_a_task_of_the_built_in_set_by_name():
    data, same = datasets.load("assistant-tagging"), datasets.load("assistant", task="tagging")
    assert (data.name, data.task) == ("assistant-en-tagging", "tagging")
    assert data.summary() == {**same.summary(), "name": data.name}
    with pytest.raises(ValueError, match="for the task matching. Received: tagging"):
        datasets.load("assistant-tagging", task="matching")


def test_errors(folder):
    with pytest.raises(ValueError, match="the task matching. Received: classification"):
        datasets.load(folder, task="matching")
    with pytest.raises(
        ValueError, match="assistant, apidocs, sst2, mrpc, tnews, or a folder.*Received: 'nothing'"
    ):
        datasets.load("nothing")


def test_loading_does_not_import_tensorflow():
    code = "import sys, keras_compress.datasets, keras_compress.files; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
