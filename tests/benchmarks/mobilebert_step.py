"""A MobileBERT's training step against a BERT's of as many parameters, and its phases against the whole; batch 32."""

import numpy as np

from mobile_export.benchmark import interleave
from tests.benchmarks import figure
from tests.benchmarks.training import BATCH, LENGTH, RUNS, WARMUP, minilm, training_step


def mobilebert_step():
    """A plain step of MobileBERT, 6 layers and width 384, over one of a BERT of 2 layers and as many parameters; and a
    step of the transfer's first and last phase over teacher forward + plain MobileBERT step, timed apart."""
    from keras_compress.backend import tf
    from keras_compress.bert.task_model import TaskModel
    from keras_compress.distillation.mobilebert import FACTORS, losses_of, new_student
    from keras_compress.training.distill import Distiller, named_outputs, outputs_read
    from keras_compress.training.optimizer import adamw
    from keras_compress.training.settings import Training

    teacher, random = minilm(), np.random.default_rng(0)
    small = new_student(teacher, 6, {}, seed=0)
    config = teacher.config.replace(num_layers=2, intermediate_size=1128, embedding_size=96)
    wide = TaskModel(config, teacher.tokenizer, teacher.task, teacher.labels)
    inputs = {
        "input_word_ids": random.integers(4, 30000, (BATCH, LENGTH)),
        "input_mask": np.ones((BATCH, LENGTH)),
        "input_type_ids": np.zeros((BATCH, LENGTH)),
    }
    inputs = {k: tf.constant(v, tf.int32) for k, v in inputs.items()}
    labels = tf.constant(random.integers(0, 2, BATCH), tf.int32)
    forward = tf.function(lambda: teacher.model(inputs, training=False))
    steps = {
        "teacher": lambda: forward().numpy(),
        "wide": training_step(wide.model, adamw(Training(), 100)),
        "mobilebert": training_step(small.model, adamw(Training(), 100)),
    }
    for layer in (1, 6):
        losses, own = losses_of(teacher, small, layer, FACTORS, seed=0)
        names = outputs_read([loss for _, loss in losses.values()], teacher, small)
        frozen, learning = (named_outputs(*pair) for pair in zip((teacher, small), names))
        model = Distiller(lambda x, f=frozen: f(x, training=False), learning, losses, own)
        model.compile(adamw(Training(), 100), jit_compile=False)
        step = tf.function(lambda m=model: m.train_step((inputs, labels, inputs))["loss"])
        steps[layer] = lambda f=step: f().numpy()
    ms = dict(zip(steps, np.median(interleave(list(steps.values()), RUNS, WARMUP), axis=1)))
    plain = f"plain MobileBERT step {ms['mobilebert']:.0f} ms, seq {LENGTH}, batch {BATCH}"
    found = [
        figure(
            "mobilebert_step",
            ms["mobilebert"] / ms["wide"],
            plain,
            f"plain step of a BERT of 2 layers, as many parameters: {ms['wide']:.0f} ms",
        )
    ]
    for layer in (1, 6):
        apart = f"teacher forward {ms['teacher']:.0f} ms + {plain}"
        ratio = ms[layer] / (ms["teacher"] + ms["mobilebert"])
        found.append(figure(f"mobilebert_step, phase {layer}", ratio, f"{ms[layer]:.0f} ms", apart))
    return found


FIGURES = {"mobilebert_step": mobilebert_step}
