"""What was damaged since it was written is refused, or changes nothing. More of the same: python -m tests.attack."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import Tokenizer, read_vocab
from keras_compress.files import read_json, sha256_of, write_json, write_sealed
from keras_compress.training.finetune import finetune
from mobile_export.ort import open_model
from tests import attack, samples
from tests.bert import tiny
from tests.support import TRAINING, data


@pytest.mark.parametrize("name", [name for name in attack.TARGETS if name != "checkpoints"])
def test_damage_is_told_or_changes_nothing(name):
    counts = attack.attack(attack.TARGETS[name][0], 24, seed=1)
    assert counts["refused"] + counts["same"] == 24 and counts["refused"] > 12, counts


def test_sealed_json_tells_what_was_edited_and_how_to_keep_the_edit(tmp_path):
    path, labels = tmp_path / "config.json", tmp_path / "labels.txt"
    labels.write_text("no\n")
    write_sealed(path, {"rate": 0.1, "names": ("a", "é"), "nan": float("nan")}, [labels])
    content = read_json(path, beside=True)
    assert str(content) == "{'rate': 0.1, 'names': ['a', 'é'], 'nan': nan}"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8"))))  # another layout is no change
    read_json(path, beside=True)
    labels.write_text("nein\n")
    read_json(path)
    with pytest.raises(ValueError, match="labels.txt: .*edited.*delete `sha256` from config.json"):
        read_json(path, beside=True)
    labels.unlink()
    with pytest.raises(ValueError, match="labels.txt. It is missing"):
        read_json(path, beside=True)
    edited = {**json.loads(path.read_text("utf-8")), "rate": 0.2}
    write_json(path, edited)
    with pytest.raises(ValueError, match="config.json: .*edited.*delete `sha256` from config.json"):
        read_json(path)
    elsewhere = {"content": sha256_of({"rate": 0.2}), "../other.txt": "0" * 64}
    write_json(path, {"rate": 0.2, "sha256": elsewhere})
    (tmp_path.parent / "other.txt").write_text("foreign")
    with pytest.raises(ValueError, match="must come with other.txt. It is missing"):
        read_json(path, beside=True)  # a seal leads to nothing outside of the folder
    del edited["sha256"]
    write_json(path, edited)
    assert read_json(path, beside=True)["rate"] == 0.2


def test_a_folder_whose_labels_were_renamed_goes_on_as_the_message_says(tmp_path):
    folder = samples.model(tmp_path / "model")
    (folder / "labels.txt").write_text("nein\nvielleicht\nja\n")
    with pytest.raises(ValueError, match="labels.txt.*If the change is yours, delete `sha256`"):
        TaskModel.load(folder)
    write_json(folder / "config.json", read_json(folder / "config.json"))
    assert TaskModel.load(folder).labels == ("nein", "vielleicht", "ja")


def test_files_without_a_stamp_are_read_as_they_are(tmp_path):
    folder, read = attack.exported(tmp_path)
    content = (folder / "float32.tflite").read_bytes()
    old = content.replace(b"keras_compress sha256", b"keras_compress sha257")
    assert open_model(old).sequence_length == 16 and old != content


@pytest.mark.usefixtures("eager_here")
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog):
    training = TRAINING.replace(epochs=2, checkpoint_every=2, patience=1, folder=str(tmp_path))
    run = lambda: finetune(tiny.model(), data(), training=training).weights()
    whole, folder = run(), tmp_path / "finetune"
    assert len([*folder.glob("ckpt-*")]) == 6 and (folder / "ckpt-6.json").is_file()
    (state,) = folder.glob("ckpt-6.data*")
    state.write_bytes(state.read_bytes()[:-1] + b"\7")
    with caplog.at_level(logging.INFO):
        np.testing.assert_equal(run(), whole)
    assert "ckpt-6 is damaged and left out" in caplog.text
    assert "resumed from" in caplog.text and "ckpt-4" in caplog.text
    (folder / "ckpt-6 (copy).json").write_text("{}")
    for path in folder.glob("ckpt-*.index"):
        path.unlink()
    with pytest.raises(ValueError, match="2 damaged.*index.*delete .*finetune to have this stage"):
        run()
    for path in folder.glob("ckpt-*.json"):
        path.unlink()
    np.testing.assert_equal(run(), whole)


def test_threads_may_share_a_tokenizer_and_a_runner(tmp_path):
    folder, _ = attack.exported(tmp_path)
    texts = ["the cat " * k for k in (1, 2, 5, 9)]
    jobs = [(k % 4, (4, 8, 16)[k % 3]) for k in range(2000)]
    tokenizer, runner = tiny.tokenizer(), open_model(folder / "float32.tflite")

    def answer(job):
        (encoding,) = tokenizer.encode([texts[job[0]]], job[1])
        return encoding.ids, runner.run(runner.inputs(encoding)).tobytes()

    alone = {job: answer(job) for job in jobs}
    with ThreadPoolExecutor(8) as pool:
        together = [*pool.map(answer, jobs)]
    assert together == [alone[job] for job in jobs]


def test_a_piece_of_several_lines_is_saved_under_a_stand_in(tmp_path):
    vocab = [*tiny.VOCAB, "a\nb", "\r"]
    Tokenizer(vocab).save(tmp_path / "vocab.txt")
    pieces = read_vocab(tmp_path / "vocab.txt", keep=True)
    assert pieces == [*tiny.VOCAB, "[piece 32]", "[piece 33]"]
