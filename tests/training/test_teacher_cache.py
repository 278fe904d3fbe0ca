import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.training import distill as D
from keras_compress.training import teacher_cache as cache
from keras_compress.training.loop import finetune
from tests.bert import tiny
from tests.training.test_distill import TRAINING, distilled, foreign, still
from tests.training.test_distill import labelled as short_texts

TEXTS = [
    "a",
    "the cat",
    "unbelievable dogs sat",
    "我听音乐",
    "the cat sat on the mat",
    "dog",
    "a cafe, the mat !",
    "x 12",
]


def labelled():
    """Texts of many lengths, so that buckets, padding and order all matter."""
    split = Split(TEXTS, [k % 3 for k in range(len(TEXTS))])
    return Dataset("lengths", "classification", tiny.LABELS["classification"], split, split)


def test_cut_and_pad_are_inverse():
    for shape, value in (
        ((None, 3), np.arange(3.0)),
        ((None, None, 2), np.arange(10.0).reshape(5, 2)),
        ((None, 2, None, None), np.arange(50.0).reshape(2, 5, 5)),
    ):
        cut = cache._cut(value, 3)
        padded = cache._pad(cut.ravel(), shape, 3, 5)
        assert padded.shape == value.shape and np.array_equal(cache._cut(padded, 3), cut)


def test_what_is_read_is_what_the_teacher_says_in_the_order_of_the_batches():
    teacher, data = still(), labelled()
    names = ["logits", "hidden_states/1", "hidden_states/2/cls", "attention_scores/0"]
    model, training = D.outputs(teacher, names), TRAINING.replace(batch_size=3)
    read = cache.cache_outputs(
        model, data, teacher.tokenizer, teacher.tokenizer, training, 4, 1, 8
    )(1, 8)
    from keras_compress.training.loop import stream

    batches = list(zip(stream(data, teacher.tokenizer, training, 4, 1, 8), read))
    assert len(batches) == 7
    for (inputs, _), found in batches:
        said, mask = model(inputs), tf.cast(inputs["input_mask"], tf.float32).numpy()
        kept = {
            "hidden_states/1": mask[:, :, None],
            "attention_scores/0": mask[:, None, :, None] * mask[:, None, None],
        }
        for name in names:  # padding is kept as zeros
            np.testing.assert_allclose(
                found[name], said[name] * kept.get(name, 1.0), atol=1e-5, err_msg=name
            )


def test_a_full_disk_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    teacher = still()
    with pytest.raises(
        ValueError,
        match="must have room for the teacher's outputs. Received: 10 bytes free, 96 needed",
    ):
        cache.cache_outputs(
            D.outputs(teacher, ["logits"]),
            labelled(),
            teacher.tokenizer,
            teacher.tokenizer,
            TRAINING,
            0,
            0,
            9,
        )


@pytest.mark.parametrize(
    "names, another",
    [
        (["logits"], lambda: still(seed=5)),
        (["logits"], foreign),  # of another vocabulary
        (
            ["logits", "hidden_states/1", "attention_scores/0", "hidden_states/2/cls"],
            lambda: still(seed=5),
        ),
    ],
)
def test_a_cached_teacher_gives_the_same_training(names, another):
    def objective(theirs, ours, labels, mask):
        real = tf.cast(mask, tf.float32)
        counts = {
            "hidden_states/1": real[:, :, None],
            "attention_scores/0": real[:, None, :, None] * real[:, None, None],
        }
        return {
            "all": tf.add_n(
                [tf.reduce_mean(tf.square(theirs[n] - ours[n]) * counts.get(n, 1.0)) for n in names]
            )
        }

    curves, ends = [], []
    for cached in (False, True):
        student = another()
        curves.append(
            D.distill(
                still(),
                student,
                labelled(),
                objective,
                {"all": 1.0},
                teacher_outputs=names,
                student_outputs=names,
                training=TRAINING.replace(cache_teacher=cached),
                seed=0,
                stage="distill",
                num_steps=7,
            )
        )
        ends.append(student.weights())
    np.testing.assert_allclose(
        [row["loss"] for row in curves[1]], [row["loss"] for row in curves[0]], rtol=1e-3
    )
    np.testing.assert_allclose(
        [row["learning_rate"] for row in curves[1]], [row["learning_rate"] for row in curves[0]]
    )
    for name, value in ends[0].items():
        np.testing.assert_allclose(ends[1][name], value, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("num_steps, first_step, num_texts", [(9, 0, 12), (2, 1, 8)])
def test_a_cached_teacher_runs_once_per_text_that_is_read(
    num_steps, first_step, num_texts, monkeypatch, caplog, tmp_path
):
    teacher, rows = still(), []  # 12 texts, 3 batches an epoch
    real = D.outputs

    def counted(model, names):
        found = real(model, names)
        if model is teacher:
            call = found.call
            found.call = lambda inputs, training=None, mask=None: (
                tf.py_function(lambda x: rows.append(len(x)), [inputs["input_word_ids"]], []),
                call(inputs, training, mask),
            )[1]
        return found

    monkeypatch.setattr(D, "outputs", counted)
    (tmp_path / "teacher-of-a-killed-run").mkdir()
    training = TRAINING.replace(cache_teacher=True, folder=str(tmp_path))
    with caplog.at_level("INFO", "keras_compress"):
        distilled(
            teacher, still(seed=5), training=training, num_steps=num_steps, first_step=first_step
        )
    assert sum(rows) == num_texts and len(short_texts().train.texts) == 12
    assert ("no text is read twice" in caplog.text) == (num_steps <= 3)
    assert (
        f"{num_texts} texts once" in caplog.text
        and "MB on disk" in caplog.text
        and "MB in memory" in caplog.text
    )
    del rows[:]
    distilled(teacher, still(seed=5), training=training, num_steps=num_steps, first_step=first_step)
    assert (
        rows == [] and not (tmp_path / "teacher-of-a-killed-run").exists()
    )  # finished: resumed, nothing is read


def test_it_says_when_reading_takes_longer_than_the_teacher(monkeypatch, caplog):
    for bytes_per_s, slow in ((1e12, False), (1.0, True)):
        monkeypatch.setattr(cache, "READ_BYTES_PER_S", bytes_per_s)
        caplog.clear()
        distilled(
            still(), still(seed=5), training=TRAINING.replace(cache_teacher=True), num_steps=7
        )
        assert ("caching does not pay here: reading" in caplog.text) == slow


def test_a_stage_without_a_teacher_has_nothing_to_cache():
    with pytest.raises(
        ValueError,
        match="`cache_teacher` needs a teacher. Received: stage finetune, which has none",
    ):
        finetune(tiny.model(), short_texts(), training=TRAINING.replace(cache_teacher=True))
