import json
import logging

import numpy as np
import pytest

from keras_compress.measure.accuracy import evaluate
from keras_compress.training import loop
from keras_compress.training.finetune import finetune, tune
from keras_compress.training.loop import duration, stream
from keras_compress.training.settings import rehearsal
from tests.bert import tiny
from tests.support import TRAINING, data, in_new_process

SMALL = TRAINING.replace(warmup=0.1, evaluations=2)


def test_stream_is_one_run_through_the_epochs_wherever_it_is_cut():
    def labels(seed, first, last):
        batches = stream(data(n=10), tiny.tokenizer(), SMALL, seed, first, last)
        return [tuple(row) for _, row in batches.as_numpy_iterator()]

    whole = labels(3, 0, 7)
    assert [len(row) for row in whole].count(2) == 2 and len(whole) == 7  # batches of 4, 4 and 2
    for cut in (1, 3, 5):
        assert labels(3, 0, cut) + labels(3, cut, 7) == whole
    assert labels(4, 0, 7) != whole


def test_early_stopping_goes_back_to_the_best_weights(tmp_path):
    dataset = data(dev_labels=[2 - k % 3 for k in range(12)])  # dev contradicts train
    training = SMALL.replace(epochs=40, evaluations=20, patience=3, folder=str(tmp_path))
    tuned = finetune(tiny.model(), dataset, training=training)
    dev = [row["dev"] for row in tuned.curve if "dev" in row]
    best = dev.index(max(dev))
    assert len(dev) == best + 1 + 3 < 20
    assert evaluate(tuned, dataset.dev)["value"] == max(dev)


def test_as_much_patience_as_evaluations_keeps_the_best_and_never_ends_the_training():
    dataset = data(dev_labels=[2 - k % 3 for k in range(12)])  # dev contradicts train
    training = SMALL.replace(epochs=10, evaluations=5, patience=5)
    tuned = finetune(tiny.model(), dataset, training=training)
    dev = [row["dev"] for row in tuned.curve if "dev" in row]
    assert len(dev) == 5 and dev[-1] < max(dev) == evaluate(tuned, dataset.dev)["value"]


def test_a_rehearsal_makes_two_updates_and_tells_what_the_whole_would_be():
    with rehearsal() as stages:
        tuned = finetune(tiny.model(), data(n=10), training=SMALL.replace(epochs=7))
    ((updates, seconds),) = stages
    assert updates == 7 * 3 and 0 < seconds < 5  # batches of 4, 4 and 2
    assert tuned.curve[-1]["step"] == 2
    assert finetune(tiny.model(), data(n=10), training=SMALL).curve[-1]["step"] > 2


def test_without_a_terminal_a_line_tells_the_time_left(monkeypatch, caplog):
    monkeypatch.setattr(loop, "QUIET", 0)
    with caplog.at_level(logging.INFO):
        finetune(tiny.model(), data(n=20), training=SMALL.replace(epochs=4, evaluations=0))
    told = [line for line in caplog.messages if " left" in line]
    assert len(told) == 9 and told[0].startswith("finetune 2/20, about ")
    assert [duration(seconds) for seconds in (0.2, 59, 61, 5999, 9000)] == [
        "1 s",
        "59 s",
        "1 min",
        "100 min",
        "2.5 h",
    ]


@pytest.mark.usefixtures("eager_here")
def test_a_folder_of_another_run_is_refused(tmp_path):
    model, training = tiny.model(), SMALL.replace(epochs=1, folder=str(tmp_path))
    tuned = finetune(model, data(), training=training)
    again = finetune(model, data(), training=training)  # finished: the same weights, at once
    np.testing.assert_equal(again.weights(), tuned.weights())
    for other, dataset, changes in (
        (model, data(), {"seed": 1}),
        (model, data(n=11), {}),
        (tuned, data(), {}),
        (model, data(), {"training": training.replace(learning_rate=2e-2)}),
    ):
        with pytest.raises(
            ValueError, match="finetune holds the checkpoints of another command.*another folder"
        ):
            finetune(other, dataset, **{"training": training, **changes})


@pytest.mark.usefixtures("eager_here")
def test_a_loss_that_is_not_finite_stops_the_run():
    model = tiny.model()
    model.set_weights(
        {"classifier/bias": np.array([np.nan, 0, 0], np.float32)}, only=["classifier/bias"]
    )
    with pytest.raises(
        ValueError, match="must stay finite.*loss = nan at update 1 of stage finetune"
    ):
        tune(model, data(), seed=0, training=SMALL)


KILLED = """
import os, signal, sys
from keras_compress.backend import keras, tf
from keras_compress.method import method
from keras_compress.training import loop
from tests.bert import tiny
from tests.support import TRAINING, data
folder, kill_at = sys.argv[1], int(sys.argv[2])
keras.utils.set_random_seed(0)
tf.config.experimental.enable_op_determinism()
updates = 0
def killing(on_end):
    def on_train_batch_end(self, batch, logs=None):
        global updates
        on_end(self, batch, logs)
        updates += 1
        if updates == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    return on_train_batch_end
loop._Progress.on_train_batch_end = killing(loop._Progress.on_train_batch_end)
training = TRAINING.replace(epochs=5, evaluations=2, checkpoint_every=2)
for name, settings in (("theseus", {"num_layers": 1}),
                       ("tinybert", {"num_layers": 1, "hidden_size": 6, "num_heads": 2}),
                       ("masked_lm", {})):
    here = training.replace(folder=f"{folder}/{name}", cache_teacher=name == "tinybert")
    small = method(name)(tiny.model(), data(), training=here, seed=1, **settings)
    small.save(f"{folder}/{name}/small", overwrite=True)
"""


@pytest.mark.slow
def test_runs_killed_three_times_end_with_the_bits_of_those_that_were_not(tmp_path):
    # 15 updates each: Theseus 9 of replacing and 6 of fine-tuning; TinyBERT 8 inside and 7 on the answers; masked-LM.
    # A checkpoint every 2 and at the stages' ends.
    undisturbed = in_new_process(KILLED, tmp_path / "whole", -1)
    assert undisturbed.returncode == 0, undisturbed.stderr[-2000:]
    # At the very end of replacing (9, 8 are kept); its last, all of fine-tuning, all 8 of TinyBERT's inside and 3 of the
    # answers (2 are kept); the last 5 and 5 of masked-LM (4 are kept).
    for kill_at, finished in ((9, 0), (18, 1), (10, 2)):
        killed = in_new_process(KILLED, tmp_path / "killed", kill_at)
        assert killed.returncode == -9 and len([*tmp_path.glob("killed/*/small")]) == finished, (
            killed.stderr[-2000:]
        )
    resumed = in_new_process(KILLED, tmp_path / "killed", -1)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    for name in ("theseus", "tinybert", "masked_lm"):
        whole, killed = (tmp_path / folder / name / "small" for folder in ("whole", "killed"))
        for file in ("model.safetensors", "config.json", "history.csv", "vocab.txt", "labels.txt"):
            assert (whole / file).read_bytes() == (killed / file).read_bytes(), (name, file)


MIRRORED = """
import json
from keras_compress.backend import tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_compress.method import method
from tests.support import TRAINING, data, lengths, still
teacher = still()
methods = {"theseus": (data(), {"rate": 0.5, "schedule": "constant"}),
           "tinybert": (lengths(), {"hidden_size": 6, "num_heads": 2})}
for name, (dataset, settings) in methods.items():
    found = {}
    for strategy in ("none", "mirrored"):
        training = TRAINING.replace(strategy=strategy, cache_teacher=name == "tinybert", warmup=0.1)
        small = method(name)(teacher, dataset, num_layers=1, training=training, **settings)
        found[strategy] = small.weights(), [row["loss"] for row in small.curve], small.predict(dataset.dev.texts)
    weights = {k: abs(v - found["none"][0][k]) for k, v in found["mirrored"][0].items()}
    print(json.dumps({"name": name, "largest": {k: float(v.max()) for k, v in weights.items()},
                      "median": max(float(sorted(v.ravel())[v.size // 2]) for v in weights.values()),
                      "losses": [found[k][1] for k in found],
                      "dp": float(abs(found["mirrored"][2] - found["none"][2]).max())}))
"""


@pytest.mark.slow
def test_two_devices_train_as_one():
    done = in_new_process(MIRRORED)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.strip().split("\n")[-2:]]
    assert [row["name"] for row in rows] == ["theseus", "tinybert"]
    for row in rows:
        # Same data, draws and gradients, but for the order of sums (which AdamW magnifies where a gradient is near 0).
        np.testing.assert_allclose(*row["losses"], rtol=1e-4, err_msg=row["name"])
        assert row["median"] < 1e-4 and row["dp"] < 1e-4, row
