import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.training import loop as T
from keras_compress.training.settings import Training
from tests.bert import tiny

ROOT = Path(__file__).parents[2]
SMALL = Training(epochs=2, batch_size=4, max_length=16, learning_rate=1e-2, evaluations=2)


def data(n=12, dev_labels=None):
    texts = [
        f"{a} {b} {c}"
        for a in ("the", "a")
        for b in ("cat", "dog", "mat")
        for c in ("sat", "on", "x")
    ][:n]
    labels = [k % 3 for k in range(n)]
    return Dataset(
        "tiny",
        "classification",
        tiny.LABELS["classification"],
        Split(texts, labels),
        Split(texts, dev_labels or labels),
        Split(texts, labels),
    )


def test_warm_up_and_linear_decay_by_hand():
    schedule = T.WarmUpLinear(peak=1.0, warmup_steps=4, num_steps=10)
    # Up by quarters: 1/4 .. 4/4, then (10 - t) / 6: t = 4 -> 1, t = 7 -> 1/2, t = 10 -> 0, and 0 beyond.
    np.testing.assert_allclose(
        [schedule(t) for t in (0, 1, 3, 4, 7, 10, 12)], [0.25, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    )
    assert T.WarmUpLinear.from_config(schedule.get_config()).get_config() == schedule.get_config()
    assert float(T.WarmUpLinear(0.5, 0, 10)(0)) == 0.5


def test_decay_spares_biases_and_normalisation():
    model = tiny.model(dropout=0.0)
    optimizer = T.adamw(Training(weight_decay=0.5, learning_rate=0.1, warmup=0.0), 1)
    before = model.weights()
    optimizer.apply_gradients([(tf.zeros_like(v), v) for v in model.model.trainable_variables])
    for name, after in model.weights().items():
        factor = (
            1.0 if name.endswith(("bias", "beta", "gamma")) else 1.0 - 0.1 * 0.5
        )  # decoupled: w - lr * decay * w
        np.testing.assert_allclose(after, factor * before[name], rtol=1e-6, err_msg=name)


def test_gradients_are_clipped_by_their_global_norm():
    optimizer = T.adamw(Training(clip_norm=1.0), 10)
    clipped = optimizer._clip_gradients([tf.constant([3.0]), tf.constant([4.0])])  # norm 5 -> 1
    np.testing.assert_allclose([float(g[0]) for g in clipped], [0.6, 0.8], rtol=1e-6)


def test_task_loss_by_hand():
    logits = tf.math.log([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])
    # -(ln .5 + ln .25) / 2 = (0.6931 + 1.3863) / 2
    np.testing.assert_allclose(T.task_loss("classification")([0, 0], logits), 1.0397, atol=1e-4)
    rows = tf.stack([logits, logits])
    # Only three of four places count: (0.6931 + 1.3863 + 0.6931) / 3
    np.testing.assert_allclose(T.task_loss("tagging")([[0, 0], [0, -1]], rows), 0.9242, atol=1e-4)


def test_stream_is_one_run_through_the_epochs_wherever_it_is_cut():
    dataset, tokenizer = data(10), tiny.tokenizer()
    whole = [
        tuple(labels)
        for _, labels in T.stream(dataset, tokenizer, SMALL, 3, 0, 7).as_numpy_iterator()
    ]
    assert [len(labels) for labels in whole].count(2) == 2 and len(
        whole
    ) == 7  # 10 texts: batches of 4, 4 and 2
    for cut in (1, 3, 5):
        parts = [
            tuple(labels)
            for first, last in ((0, cut), (cut, 7))
            for _, labels in T.stream(dataset, tokenizer, SMALL, 3, first, last).as_numpy_iterator()
        ]
        assert parts == whole
    other = [
        tuple(labels)
        for _, labels in T.stream(dataset, tokenizer, SMALL, 4, 0, 7).as_numpy_iterator()
    ]
    assert other != whole


def test_finetune_learns_and_leaves_its_input_alone(tmp_path):
    model, dataset = tiny.model(), data()
    before = model.weights()
    tuned = T.finetune(model, dataset, training=SMALL.replace(epochs=30, folder=str(tmp_path)))
    assert all(np.array_equal(before[k], v) for k, v in model.weights().items())
    assert tuned.curve[-1]["dev"] == 1.0 and tuned.curve[-1]["loss"] < tuned.curve[0]["loss"] / 2
    assert tuned.curve[-1]["step"] == 90
    assert sum("dev" in row for row in tuned.curve) == 2
    assert (
        tuned.history[-1]["training"]["epochs"] == 30
        and "folder" not in tuned.history[-1]["training"]
    )
    assert list((tmp_path / "finetune" / "log").iterdir())  # TensorBoard's file


def test_only_trains_only():
    model = tiny.model()
    before = model.weights()
    tuned = T.finetune(model, data(), training=SMALL, only="classifier")
    moved = {
        name for name, value in tuned.weights().items() if not np.array_equal(before[name], value)
    }
    assert moved == {"classifier/kernel", "classifier/bias"} and all(
        layer.trainable for layer in tuned.model.layers
    )


def test_early_stopping_goes_back_to_the_best_weights(tmp_path):
    dataset = data(
        dev_labels=[2 - k % 3 for k in range(12)]
    )  # dev contradicts train: it can only get worse
    training = SMALL.replace(epochs=40, evaluations=20, patience=3, folder=str(tmp_path))
    tuned = T.finetune(tiny.model(), dataset, training=training)
    dev = [row["dev"] for row in tuned.curve if "dev" in row]
    best = dev.index(max(dev))
    assert len(dev) == best + 1 + 3 < 20
    assert T.evaluate(tuned, dataset.dev)["value"] == max(dev)


def test_a_folder_of_another_run_is_refused(tmp_path):
    model, training = tiny.model(), SMALL.replace(epochs=1, folder=str(tmp_path))
    tuned = T.finetune(model, data(), training=training)
    np.testing.assert_equal(
        T.finetune(model, data(), training=training).weights(), tuned.weights()
    )  # goes on
    for other, dataset, changes in (
        (model, data(), {"seed": 1}),
        (model, data(n=11), {}),
        (tuned, data(), {}),
        (model, data(), {"only": "classifier"}),
        (model, data(), {"num_steps": 5}),
        (model, data(), {"training": training.replace(learning_rate=2e-2)}),
    ):
        with pytest.raises(
            ValueError, match="finetune holds the checkpoints of another command.*another folder"
        ):
            T.finetune(other, dataset, **{"training": training, **changes})


def test_a_loss_that_is_not_finite_stops_the_run():
    model = tiny.model()
    model.set_weights(
        {"classifier/bias": np.array([np.nan, 0, 0], np.float32)}, only=["classifier/bias"]
    )
    with pytest.raises(
        ValueError, match="must stay finite.*loss = nan at update 1 of stage finetune"
    ):
        T.finetune(model, data(), training=SMALL)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epochs": 0}, "`epochs` must be positive. Received: 0"),
        ({"warmup": 1.0}, "`warmup` must be in"),
        ({"epochs": float("inf")}, "`epochs` must be positive"),
        ({"weight_decay": -1.0}, "`weight_decay` must be 0 or more"),
        ({"evaluations": -1}, "`evaluations` must be 0"),
        ({"patience": 2, "evaluations": 0}, "`patience` needs `evaluations`"),
        ({"strategy": "tpu"}, "`strategy` must be none or mirrored"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        Training(**change)


SCRIPT = """
import os, signal, sys
from keras_compress.backend import keras, tf
from keras_compress.training import loop as T
from keras_compress.distillation import tinybert
from keras_compress.pretraining.masked_lm import masked_lm
from keras_compress.replacement import theseus
from tests.bert import tiny
from tests.training.test_loop import SMALL, data
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
T._Progress.on_train_batch_end = killing(T._Progress.on_train_batch_end)
training = SMALL.replace(epochs=5, evaluations=2, checkpoint_every=2)
for name, compress, settings in (("theseus", theseus.compress, {"num_layers": 1}),
                                 ("tinybert", tinybert.compress, {"num_layers": 1, "hidden_size": 6, "num_heads": 2}),
                                 ("mlm", masked_lm, {})):
    here = training.replace(folder=f"{folder}/{name}", cache_teacher=name == "tinybert")
    small = compress(tiny.model(), data(), training=here, seed=1, **settings)
    small.save(f"{folder}/{name}/small", overwrite=True)
"""


def run_script(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_runs_killed_three_times_end_with_the_bits_of_those_that_were_not(tmp_path):
    # 15 updates each: Theseus 9 of replacing and 6 of fine-tuning; TinyBERT 8 inside and 7 on the answers; masked-LM.
    # A checkpoint every 2 and at the stages' ends.
    undisturbed = run_script(tmp_path / "whole", -1)
    assert undisturbed.returncode == 0, undisturbed.stderr[-2000:]
    # At the very end of replacing (9, 8 are kept); its last, all of fine-tuning, all 8 of TinyBERT's inside and 3 of the
    # answers (2 are kept); the last 5 and 5 of masked-LM (4 are kept).
    for kill_at, finished in ((9, 0), (18, 1), (10, 2)):
        killed = run_script(tmp_path / "killed", kill_at)
        assert killed.returncode == -9 and len([*tmp_path.glob("killed/*/small")]) == finished, (
            killed.stderr[-2000:]
        )
    resumed = run_script(tmp_path / "killed", -1)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    for name in ("theseus", "tinybert", "mlm"):
        whole, killed = (tmp_path / folder / name / "small" for folder in ("whole", "killed"))
        for file in ("model.safetensors", "config.json", "history.csv", "vocab.txt", "labels.txt"):
            assert (whole / file).read_bytes() == (killed / file).read_bytes(), (name, file)


MIRRORED = """
import json, sys
from keras_compress.backend import tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_compress.distillation import tinybert
from keras_compress.replacement import theseus
from tests.bert import tiny
from tests.training.test_teacher_cache import labelled
from tests.training.test_loop import SMALL, data
teacher = tiny.model(dropout=0.0, attention_dropout=0.0)
methods = {"theseus": (theseus.compress, data(), {"rate": 0.5, "schedule": "constant"}),
           "tinybert": (tinybert.compress, labelled(), {"hidden_size": 6, "num_heads": 2})}
for name, (compress, dataset, settings) in methods.items():
    found = {}
    for strategy in ("none", "mirrored"):
        training = SMALL.replace(strategy=strategy, evaluations=1, cache_teacher=name == "tinybert")
        small = compress(teacher, dataset, num_layers=1, training=training, **settings)
        found[strategy] = small.weights(), [row["loss"] for row in small.curve], small.predict(dataset.dev.texts)
    weights = {k: abs(v - found["none"][0][k]) for k, v in found["mirrored"][0].items()}
    print(json.dumps({"name": name, "largest": {k: float(v.max()) for k, v in weights.items()},
                      "median": max(float(sorted(v.ravel())[v.size // 2]) for v in weights.values()),
                      "losses": [found[k][1] for k in found],
                      "dp": float(abs(found["mirrored"][2] - found["none"][2]).max())}))
"""


def test_two_devices_train_as_one():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.strip().split("\n")[-2:]]
    assert [row["name"] for row in rows] == ["theseus", "tinybert"]
    for found in rows:
        # Same data, draws and gradients, but for the order of sums (which AdamW magnifies where a gradient is near 0).
        np.testing.assert_allclose(*found["losses"], rtol=1e-4, err_msg=found["name"])
        assert found["median"] < 1e-4 and found["dp"] < 1e-4, found
