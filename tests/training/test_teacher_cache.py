import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.training import distill as D
from keras_compress.training import teacher_cache as cache
from keras_compress.training.finetune import finetune
from keras_compress.training.loop import stream
from tests.bert import tiny
from tests.support import TRAINING, data, foreign, lengths, shared_still, still

SHORT = TRAINING.replace(evaluations=0)
LOGITS = lambda T, S, labels, mask: tf.reduce_mean(tf.square(T["logits"] - S["logits"]))


def distilled(teacher, student, dataset, *losses, **settings):
    losses = {str(k): (1.0, loss) for k, loss in enumerate(losses or [LOGITS])}
    return D.distill(teacher, student, dataset, losses, seed=0, **settings).curve


def real_pieces(mask):
    """1 where an output of a name belongs to no padding; padding is kept as zeros."""
    real = tf.cast(mask, tf.float32)
    pairs = real[:, None, :, None] * real[:, None, None, :]
    return {"hidden_states/1": real[:, :, None], "attention_scores/0": pairs}


def test_what_is_read_is_what_the_teacher_says_in_the_order_of_the_batches():
    teacher, texts = still(), lengths()
    names = ["logits", "hidden_states/1", "hidden_states/2/cls", "attention_scores/0"]
    model, training = D.named_outputs(teacher, names), TRAINING.replace(batch_size=3)
    tokenizer = teacher.tokenizer
    read = cache.cache_outputs(model, texts, tokenizer, tokenizer, training, 4, 7)(1, 8)
    batches = list(zip(stream(texts, tokenizer, training, 4, 1, 8), read))
    assert len(batches) == 7
    for (inputs, _), outputs in batches:
        said, real = model(inputs), real_pieces(inputs["input_mask"])
        assert outputs.keys() == said.keys()
        for name, value in said.items():
            expected = value * real.get(name, 1.0)
            np.testing.assert_allclose(outputs[name], expected, atol=1e-5, err_msg=name)


def test_a_full_disk_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(
        ValueError, match="room for the teacher's outputs. Received: 10 bytes free, 96 needed"
    ):  # 8 texts x 3 logits x 4 bytes
        training = SHORT.replace(cache_teacher=True)
        distilled(shared_still(), still(), lengths(), training=training, num_steps=2)


def inside(T, S, labels, mask):
    real = real_pieces(mask)
    names = "hidden_states/1", "attention_scores/0", "hidden_states/2/cls"
    squares = [tf.square(T[name] - S[name]) * real.get(name, 1.0) for name in names]
    return tf.add_n([tf.reduce_mean(square) for square in squares])


@pytest.mark.parametrize(
    "losses, student",
    [([LOGITS], foreign), ([LOGITS, inside], lambda: still(seed=5))],  # another vocabulary
)
@pytest.mark.usefixtures("eager_here")
def test_a_cached_teacher_gives_the_same_training(losses, student):
    curves, ends = [], []
    for cached in (False, True):
        small, training = student(), SHORT.replace(cache_teacher=cached)
        curves.append(
            distilled(shared_still(), small, lengths(), *losses, training=training, num_steps=7)
        )
        ends.append(small.weights())
    for name, tolerance in (("loss", 1e-3), ("learning_rate", 1e-7)):
        plain, cached = ([row[name] for row in curve] for curve in curves)
        np.testing.assert_allclose(cached, plain, rtol=tolerance)
    for name, value in ends[0].items():
        np.testing.assert_allclose(ends[1][name], value, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("num_steps, first_step", [(9, 0), (2, 1)])
def test_a_cached_teacher_runs_once_per_text(num_steps, first_step, caplog, tmp_path):
    teacher, rows = still(), []  # 12 texts, 3 batches an epoch

    def counted(model, keys):
        outputs = D.named_outputs(model, keys)
        if model is teacher:
            call = outputs.call
            outputs.call = lambda inputs, training=None, mask=None: (
                tf.py_function(lambda x: rows.append(len(x)), [inputs["input_word_ids"]], []),
                call(inputs, training, mask),
            )[1]
        return outputs

    (tmp_path / "teacher-of-a-killed-run").mkdir()
    training = SHORT.replace(cache_teacher=True, folder=str(tmp_path))
    settings = {"training": training, "num_steps": num_steps, "first_step": first_step}
    settings["outputs"] = counted
    with caplog.at_level("INFO", "keras_compress"):
        distilled(teacher, still(seed=5), data(), **settings)
    assert sum(rows) == len(data().train.texts) == 12
    assert ("no text is read twice" in caplog.text) == (num_steps <= 3)
    for words in ("12 texts once", "MB on disk (logits)"):
        assert words in caplog.text  # of what the losses read, the logits, and nothing else
    del rows[:]
    distilled(teacher, still(seed=5), data(), **settings)
    assert rows == []  # finished: resumed, nothing is read
    assert not (tmp_path / "teacher-of-a-killed-run").exists()


def test_a_stage_without_a_teacher_has_nothing_to_cache():
    with pytest.raises(ValueError, match="needs a teacher. Received: stage finetune, which has no"):
        finetune(tiny.shared(), data(), training=SHORT.replace(cache_teacher=True))
