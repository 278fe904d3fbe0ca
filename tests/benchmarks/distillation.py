"""Distillation steps against their parts, and the speed of data augmentation; MiniLM's sizes, batch 32."""
import time

import numpy as np

from mobile_export.benchmark import interleave
from tests.benchmarks import figure
from tests.benchmarks.training import BATCH, LENGTH, RUNS, WARMUP, minilm, training_step

NUM_SENTENCES, COPIES = 200, 20


def distill_step():
    """A distillation step on the logits, 6 layers to 3, over teacher forward + plain student step, timed apart; the same
    with the teacher's answers read from the cache's files instead of computed, over the plain student step; and reading
    what TinyBERT compares, over that step. Reading is timed alone, as if it never ran beside the training."""
    from keras_compress.backend import tf
    from keras_compress.datasets.dataset import Dataset, Split
    from keras_compress.distillation.cache import cache_outputs
    from keras_compress.distillation.distiller import Distiller, label_loss, outputs, soft_target_loss
    from keras_compress.settings import Training
    from keras_compress.training import adamw

    teacher, student, plain = minilm(), minilm(3), minilm(3)
    random = np.random.default_rng(0)
    inputs = {"input_word_ids": random.integers(4, 30000, (BATCH, LENGTH)), "input_mask": np.ones((BATCH, LENGTH)),
              "input_type_ids": np.zeros((BATCH, LENGTH))}
    inputs = {k: tf.constant(v, tf.int32) for k, v in inputs.items()}
    labels, answers = tf.constant(random.integers(0, 2, BATCH), tf.int32), outputs(teacher, ["logits"])

    def objective(theirs, ours, labels, mask):
        return {"soft": soft_target_loss(theirs["logits"], ours["logits"], 2.0), "label": label_loss(labels, ours["logits"])}

    def distiller(ask):
        model = Distiller(ask, outputs(student, ["logits"]), objective, {"soft": 1.0, "label": 1.0})
        model.compile(adamw(Training(), 100), jit_compile=False)
        return model

    forward = tf.function(lambda: answers(inputs, training=False)["logits"])
    kept = {"logits": forward()}
    running, reading = distiller(lambda x: answers(x, training=False)), distiller(lambda x: x)
    step = tf.function(lambda: running.train_step(({"student": inputs, "teacher": inputs}, labels))["loss"])
    cached = tf.function(lambda: reading.train_step(({"student": inputs, "teacher": kept}, labels))["loss"])
    ours, theirs, own, read = np.median(interleave(
        [lambda: step().numpy(), lambda: forward().numpy(), training_step(plain.model, adamw(Training(), 100)),
         lambda: cached().numpy()], RUNS, WARMUP), axis=1)
    texts = [" ".join(f"word{i}" for i in random.integers(0, 30000, LENGTH - 2)) for _ in range(8 * BATCH)]
    dataset = Dataset("full length", "classification", teacher.labels, Split(texts, [0] * len(texts)))
    training = Training(batch_size=BATCH, max_length=LENGTH)

    def reading_ms(names):
        """Per batch, all from the files of `cache_outputs`."""
        batches = cache_outputs(outputs(teacher, names), dataset, teacher.tokenizer, student.tokenizer, training, 0, 0,
                                RUNS)(0, RUNS)
        start = time.perf_counter()
        for _ in batches:
            pass
        return 1000 * (time.perf_counter() - start) / RUNS

    inside = [f"hidden_states/{n}" for n in (0, 2, 4, 6)] + [f"attention_scores/{n}" for n in (1, 3, 5)]
    from_file, for_tinybert = reading_ms(["logits"]), reading_ms(inside)
    where = f"seq {LENGTH}, batch {BATCH}"
    return [figure("distill_step", ours / (theirs + own), f"6 layers to 3, logits: {ours:.0f} ms",
                   f"teacher forward {theirs:.0f} ms + plain student step {own:.0f} ms, {where}"),
            figure("cached_distill_step", (read + from_file) / own,
                   f"step {read:.0f} ms + reading the teacher's answers {from_file:.1f} ms",
                   f"plain student step {own:.0f} ms, {where}"),
            figure("cached_tinybert_reading", for_tinybert / own, f"reading TinyBERT's outputs: {for_tinybert:.0f} ms",
                   f"plain student step {own:.0f} ms, {where}")]


def augmentation():
    """Generated sentences per second over the 100 that are asked for: MiniLM, single context, 20 copies, `assistant`."""
    from keras_compress import datasets
    from keras_compress.bert.weights import load
    from keras_compress.distillation.augmentation import augment

    texts = datasets.load("assistant").train.texts[:NUM_SENTENCES]
    mlm = load("minilm", task="mlm", labels=())
    list(augment(texts[:64], mlm, copies=COPIES))
    start = time.perf_counter()
    made = sum(len(new) for new in augment(texts, mlm, copies=COPIES))
    seconds = time.perf_counter() - start
    return figure("augmentation", made / seconds / 100, f"{made / seconds:.0f} different sentences/s, {COPIES} copies of "
                  f"{len(texts)} texts, {made} different", "100 sentences/s")


FIGURES = {"distill_step": distill_step, "augmentation": augmentation}
