"""Distillation steps against their parts, and the speed of data augmentation; MiniLM's sizes, batch 32."""

import time

import numpy as np

from mobile_export.benchmark import interleave
from tests.benchmarks import figure
from tests.benchmarks.training import BATCH, LENGTH, RUNS, WARMUP, minilm, training_step

NUM_SENTENCES, COPIES = 200, 20


def distill_step():
    """A distillation step of 6 layers to 3, on the logits, on their directions alone, on what TinyBERT compares inside and on three levels,
    over teacher forward + plain student step, timed apart; the same with the teacher's outputs read from the cache's files
    instead of computed, over the plain student step. Reading is timed alone, as if it never ran beside the training;
    the files were just written, so they are read from memory, and the teacher's one pass that fills them is not counted."""
    from keras_compress.backend import tf
    from keras_compress.datasets.dataset import Dataset, Split
    from keras_compress.distillation.multilevel import levels_of
    from keras_compress.distillation.spherical import spherical_losses
    from keras_compress.distillation.tinybert import attention_loss, hidden_loss, projection
    from keras_compress.training.distill import Distiller, named_outputs, outputs_read
    from keras_compress.training.losses import label_loss, masked_mean, soft_label_loss
    from keras_compress.training.optimizer import adamw
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
    W = projection(384, 384, seed=0)

    def soft(T, S, labels, mask):
        return masked_mean(soft_label_loss(T["logits"], S["logits"], 2.0))

    def label(T, S, labels, mask):
        return label_loss(labels, S["logits"])

    def hidden(T, S, labels, mask):
        states = ((T["hidden_states", 2 * m], W(S["hidden_states", m])) for m in range(4))
        return tf.add_n([hidden_loss(*pair, mask) for pair in states])

    def attn(T, S, labels, mask):
        scores = ((T["attention_scores", 2 * m + 1], S["attention_scores", m]) for m in range(3))
        return tf.add_n([attention_loss(*pair, mask) for pair in scores])

    levels, heads, *_ = levels_of(student, [1, 2, 3], head="gelu")
    spherical = {name: loss for name, (_, loss) in spherical_losses(l_avg=5.0).items()}
    kinds = {
        "logits": ({"soft": soft, "label": label}, []),
        "spherical": (spherical, []),
        "TinyBERT's inside": ({"hidden": hidden, "attn": attn}, [W]),
        "three levels": ({"label": label, "levels": levels}, [*heads.values()]),
    }
    steps, frozen = {"plain": training_step(plain.model, adamw(Training(), 100))}, {}
    for kind, (losses, layers) in kinds.items():
        keys, student_keys = outputs_read(losses.values(), teacher, student)
        frozen[kind] = named_outputs(teacher, keys)
        forward = tf.function(lambda model=frozen[kind]: model(inputs, training=False))

        def distiller(ask, losses=losses, layers=layers, student_keys=student_keys):
            learning = named_outputs(student, student_keys)
            weighted = {name: (1.0, loss) for name, loss in losses.items()}
            model = Distiller(ask, learning, weighted, layers)
            model.compile(adamw(Training(), 100), jit_compile=False)
            return model

        running = distiller(lambda x, model=frozen[kind]: model(x, training=False))
        reading, kept = distiller(lambda x: x), forward()
        step = tf.function(lambda m=running: m.train_step((inputs, labels, inputs))["loss"])
        cached = tf.function(
            lambda m=reading, kept=kept: m.train_step((inputs, labels, kept))["loss"]
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

    def reading_ms(model):
        """Per batch, all from the files of `cache_outputs`."""
        batches = cache_outputs(
            model,
            dataset,
            teacher.tokenizer,
            student.tokenizer,
            training,
            0,
            RUNS,
        )(0, RUNS)
        start = time.perf_counter()
        for _ in batches:
            pass
        return 1000 * (time.perf_counter() - start) / RUNS

    where, found = f"plain student step {ms['plain']:.0f} ms, seq {LENGTH}, batch {BATCH}", []
    for kind in kinds:
        step, teacher_ms, cached = (ms[kind, part] for part in ("step", "teacher", "cached"))
        read = reading_ms(frozen[kind])
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


def projection_step():
    """A step of optimal subwords, 6 layers to 3 of half the width, with both projections and without, over teacher
    forward + plain student step. A mean, not a median: every fifth step alone compares weights."""
    from keras_compress.backend import tf
    from keras_compress.distillation.optimal_subwords import make_student
    from keras_compress.distillation.shared_projections import SharedProjections
    from keras_compress.training.distill import Distiller, named_outputs
    from keras_compress.training.losses import soft_targets
    from keras_compress.training.optimizer import adamw
    from keras_compress.training.settings import Training

    teacher, training, random = minilm(), Training(), np.random.default_rng(0)
    inputs = {
        "input_word_ids": random.integers(4, 30000, (BATCH, LENGTH)),
        "input_mask": np.ones((BATCH, LENGTH)),
        "input_type_ids": np.zeros((BATCH, LENGTH)),
    }
    inputs = {k: tf.constant(v, tf.int32) for k, v in inputs.items()}
    labels = tf.constant(random.integers(0, 2, BATCH), tf.int32)
    about = teacher, teacher.tokenizer, 3, 192, 6, 768
    frozen = named_outputs(teacher, ["logits"])
    forward = tf.function(lambda: frozen(inputs, training=False)["logits"])
    plain, _ = make_student(*about, seed=0)
    steps = {
        "plain": training_step(plain.model, adamw(training, 100)),
        "teacher": lambda: forward().numpy(),
    }
    for kind in ("none", "up", "both"):
        small, kept = make_student(*about, seed=0)
        shared = SharedProjections(teacher, small, kept, kind, every=5)
        losses = {"soft": (1.0, soft_targets(2.0)), **shared.losses(1.0)}
        learning = named_outputs(small, ["logits"])
        model = Distiller(lambda x: frozen(x, training=False), learning, losses, [shared])
        model.compile(adamw(training, 100), jit_compile=False)
        step = tf.function(lambda m=model: m.train_step((inputs, labels, inputs))["loss"])
        steps[kind] = lambda f=step: f().numpy()
    ms = dict(zip(steps, np.mean(interleave(list(steps.values()), RUNS + 1, WARMUP), axis=1)))
    apart = f"teacher forward {ms['teacher']:.0f} ms + plain student step {ms['plain']:.0f} ms"
    return [
        figure(
            f"projection_step, {kind}",
            ms[kind] / (ms["teacher"] + ms["plain"]),
            f"6 layers to 3, half as wide: {ms[kind]:.0f} ms",
            f"{apart}, seq {LENGTH}, batch {BATCH}",
        )
        for kind in ("none", "up", "both")
    ]


def augmentation():
    """Generated sentences per second over the 100 that are asked for: MiniLM, single context, 20 copies, `assistant`."""
    from keras_compress import datasets
    from keras_compress.bert.checkpoints import load
    from keras_compress.distillation.augmentation import Candidates, augment

    texts = datasets.load("assistant").train.texts[:NUM_SENTENCES]
    mlm = load("minilm", task="mlm", labels=())
    candidates = Candidates(mlm)
    list(augment(texts[:64], candidates, copies=COPIES))
    start = time.perf_counter()
    made = sum(len(new) for new in augment(texts, candidates, copies=COPIES))
    seconds = time.perf_counter() - start
    return figure(
        "augmentation",
        made / seconds / 100,
        f"{made / seconds:.0f} different sentences/s, {COPIES} copies of "
        f"{len(texts)} texts, {made} different",
        "100 sentences/s",
    )


FIGURES = {
    "distill_step": distill_step,
    "projection_step": projection_step,
    "augmentation": augmentation,
}
