"""Distillation steps against their parts, and the speed of data augmentation; MiniLM's sizes, batch 32."""

import time

import numpy as np

from mobile_export.benchmark import interleave
from tests.benchmarks import figure
from tests.benchmarks.training import BATCH, LENGTH, RUNS, WARMUP, minilm, training_step

NUM_SENTENCES, COPIES = 200, 20


def distill_step():
    """A distillation step of 6 layers to 3, on the logits and on what TinyBERT compares inside, over teacher forward +
    plain student step, timed apart; the same with the teacher's outputs read from the cache's files instead of computed,
    over the plain student step. Reading is timed alone, as if it never ran beside the training;
    the files were just written, so they are read from memory, and the teacher's one pass that fills them is not counted."""
    from keras_compress.backend import tf
    from keras_compress.datasets.dataset import Dataset, Split
    from keras_compress.distillation.tinybert import attention_loss, hidden_loss, projection
    from keras_compress.training.distill import Distiller, label_loss, outputs, soft_target_loss
    from keras_compress.training.loop import adamw
    from keras_compress.training.settings import Training
    from keras_compress.training.teacher_cache import cache_outputs

    teacher, student, plain = minilm(), minilm(3), minilm(3)
    random = np.random.default_rng(0)
    inputs = {
        "input_word_ids": random.integers(4, 30000, (BATCH, LENGTH)),
        "input_mask": np.ones((BATCH, LENGTH)),
        "input_type_ids": np.zeros((BATCH, LENGTH)),
    }
    inputs = {k: tf.constant(v, tf.int32) for k, v in inputs.items()}
    labels = tf.constant(random.integers(0, 2, BATCH), tf.int32)
    inside = projection(384, 384, seed=0)
    their_states, our_states = (
        [f"hidden_states/{n}" for n in layers] for layers in ((0, 2, 4, 6), range(4))
    )
    their_scores, our_scores = (
        [f"attention_scores/{n}" for n in layers] for layers in ((1, 3, 5), range(3))
    )

    def on_answers(theirs, ours, labels, mask):
        return {
            "soft": soft_target_loss(theirs["logits"], ours["logits"], 2.0),
            "label": label_loss(labels, ours["logits"]),
        }

    def on_inside(theirs, ours, labels, mask):
        return {
            "hidden": tf.add_n(
                [
                    hidden_loss(theirs[one], inside(ours[other]), mask)
                    for one, other in zip(their_states, our_states)
                ]
            ),
            "attn": tf.add_n(
                [
                    attention_loss(theirs[one], ours[other], mask)
                    for one, other in zip(their_scores, our_scores)
                ]
            ),
        }

    def distiller(ask, objective, names, parts, projections=()):
        model = Distiller(
            ask, outputs(student, names), objective, dict.fromkeys(parts, 1.0), projections
        )
        model.compile(adamw(Training(), 100), jit_compile=False)
        return model

    kinds = {
        "logits": (on_answers, ["logits"], ["logits"], ("soft", "label")),
        "TinyBERT's inside": (
            on_inside,
            their_states + their_scores,
            our_states + our_scores,
            ("hidden", "attn"),
            [inside],
        ),
    }
    steps = {"plain": training_step(plain.model, adamw(Training(), 100))}
    for kind, (objective, theirs, ours, *rest) in kinds.items():
        asked = outputs(teacher, theirs)
        forward = tf.function(lambda asked=asked: asked(inputs, training=False))
        kept = forward()
        running = distiller(lambda x, asked=asked: asked(x, training=False), objective, ours, *rest)
        reading = distiller(lambda x: x, objective, ours, *rest)
        step = tf.function(
            lambda m=running: m.train_step(({"student": inputs, "teacher": inputs}, labels))["loss"]
        )
        cached = tf.function(
            lambda m=reading, kept=kept: m.train_step(
                ({"student": inputs, "teacher": kept}, labels)
            )["loss"]
        )
        steps |= {
            (kind, "step"): lambda f=step: f().numpy(),
            (kind, "cached"): lambda f=cached: f().numpy(),
            (kind, "teacher"): lambda f=forward: next(iter(f().values())).numpy(),
        }
    ms = dict(zip(steps, np.median(interleave(list(steps.values()), RUNS, WARMUP), axis=1)))
    texts = [
        " ".join(f"word{i}" for i in random.integers(0, 30000, LENGTH - 2))
        for _ in range(8 * BATCH)
    ]
    dataset = Dataset(
        "full length", "classification", teacher.labels, Split(texts, [0] * len(texts))
    )
    training = Training(batch_size=BATCH, max_length=LENGTH)

    def reading_ms(names):
        """Per batch, all from the files of `cache_outputs`."""
        batches = cache_outputs(
            outputs(teacher, names),
            dataset,
            teacher.tokenizer,
            student.tokenizer,
            training,
            0,
            0,
            RUNS,
        )(0, RUNS)
        start = time.perf_counter()
        for _ in batches:
            pass
        return 1000 * (time.perf_counter() - start) / RUNS

    where, found = f"plain student step {ms['plain']:.0f} ms, seq {LENGTH}, batch {BATCH}", []
    for kind, (_, theirs, *_) in kinds.items():
        step, teacher_ms, cached, read = (
            *(ms[kind, part] for part in ("step", "teacher", "cached")),
            reading_ms(theirs),
        )
        found += [
            figure(
                f"distill_step, {kind}",
                step / (teacher_ms + ms["plain"]),
                f"6 layers to 3: {step:.0f} ms",
                f"teacher forward {teacher_ms:.0f} ms + {where}",
            ),
            figure(
                f"cached_distill_step, {kind}",
                (cached + read) / ms["plain"],
                f"step {cached:.0f} ms + reading the teacher's outputs {read:.1f} ms",
                where,
            ),
        ]
    return found


def augmentation():
    """Generated sentences per second over the 100 that are asked for: MiniLM, single context, 20 copies, `assistant`."""
    from keras_compress import datasets
    from keras_compress.bert.checkpoints import load
    from keras_compress.distillation.augmentation import augment

    texts = datasets.load("assistant").train.texts[:NUM_SENTENCES]
    mlm = load("minilm", task="mlm", labels=())
    list(augment(texts[:64], mlm, copies=COPIES))
    start = time.perf_counter()
    made = sum(len(new) for new in augment(texts, mlm, copies=COPIES))
    seconds = time.perf_counter() - start
    return figure(
        "augmentation",
        made / seconds / 100,
        f"{made / seconds:.0f} different sentences/s, {COPIES} copies of "
        f"{len(texts)} texts, {made} different",
        "100 sentences/s",
    )


FIGURES = {"distill_step": distill_step, "augmentation": augmentation}
