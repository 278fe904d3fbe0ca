"""Training steps against each other and against the processors' peak; MiniLM's sizes, batch 32, real training steps
(dropout, clipping, AdamW), wall time, alternating."""

import numpy as np

from mobile_export.benchmark import interleave
from tests.benchmarks import figure

BATCH, LENGTH, RUNS, WARMUP = 32, 48, 24, 3


def minilm(num_layers=6):
    """MiniLM without its vocabulary's words: 30,522 pieces, two labels."""
    from keras_compress.bert.config import BertConfig
    from keras_compress.bert.task_model import TaskModel
    from keras_compress.bert.tokenizer import SPECIAL_PIECES, Tokenizer

    config = BertConfig(
        hidden_size=384, num_layers=num_layers, num_heads=12, intermediate_size=1536, pooling="cls"
    )
    tokenizer = Tokenizer([*SPECIAL_PIECES, *(f"word{i}" for i in range(config.vocab_size - 4))])
    return TaskModel(config, tokenizer, "classification", ["no", "yes"])


def training_step(model, optimizer):
    """A function that runs one whole training step on full-length random texts."""
    from keras_compress.backend import tf
    from keras_compress.training.finetune import task_loss

    random = np.random.default_rng(0)
    inputs = {
        "input_word_ids": random.integers(4, 30000, (BATCH, LENGTH)),
        "input_mask": np.ones((BATCH, LENGTH)),
        "input_type_ids": np.zeros((BATCH, LENGTH)),
    }
    batch = (
        {k: tf.constant(v, tf.int32) for k, v in inputs.items()},
        tf.constant(random.integers(0, 2, BATCH), tf.int32),
    )
    model.compile(optimizer, task_loss("classification"), jit_compile=False)
    step = tf.function(lambda: model.train_step(batch)["loss"])
    return lambda: step().numpy()


def theseus_step():
    """A step of BERT-of-Theseus 6 -> 3 at rate 0.5, embeddings and head shared and frozen, over the predecessor's.

    A mean, not a median: the work of a step depends on what is drawn, and the draws of the steps timed here differ.
    """
    from keras_compress.replacement.theseus import build_theseus, cut_into_modules
    from keras_compress.training.optimizer import adamw
    from keras_compress.training.settings import Training

    predecessor = minilm()
    mixed, mixes = build_theseus(
        predecessor.clone(), predecessor.keep_layers(range(3)), cut_into_modules(6, 3)
    )
    theseus = training_step(mixed, adamw(Training(), 100))
    plain = training_step(predecessor.model, adamw(Training(), 100))
    small = minilm(3)
    three = training_step(small.model, adamw(Training(), 100))
    drawn = iter(range(10_000))

    def drawn_step():
        step = next(drawn)
        for mix in mixes:
            mix.rate.assign(0.5)
            mix.step.assign(step)
        theseus()

    ours, full, third = interleave([drawn_step, plain, three], RUNS, WARMUP).mean(axis=1)
    return [
        figure(
            "theseus_step",
            ours / full,
            f"Theseus 6 -> 3, rate 0.5: {ours:.0f} ms",
            f"plain step of 6 layers, seq {LENGTH}, batch {BATCH}: {full:.0f} ms",
        ),
        figure(
            "plain_3_step",
            third / full,
            f"plain step of 3 layers: {third:.0f} ms",
            f"of 6 layers: {full:.0f} ms",
        ),
    ]


def training_peak():
    """Share of both cores' sgemm peak that a training step reaches; 3 x the matrix products of the forward pass."""
    from keras_compress.backend import tf
    from keras_compress.measure.cost import flops
    from keras_compress.training.optimizer import adamw
    from keras_compress.training.settings import Training

    model = minilm()
    step = training_step(model.model, adamw(Training(), 100))
    a = tf.random.stateless_normal((1536, 1536), (0, 1))
    product = tf.function(lambda: tf.matmul(a, a))
    step_ms, sgemm_ms = np.median(
        interleave([step, lambda: product()[0, 0].numpy()], RUNS, WARMUP), axis=1
    )
    rate = 3 * BATCH * flops(model.config, LENGTH, 2) / step_ms / 1e6
    peak = 2 * 1536**3 / sgemm_ms / 1e6
    return figure(
        "training_peak",
        rate / peak,
        f"plain step, 6 layers, dropout, clipping, AdamW, seq {LENGTH}, batch "
        f"{BATCH}: {rate:.0f} GFLOP/s in {step_ms:.0f} ms",
        f"TensorFlow sgemm 1536^3, all cores: {peak:.0f} GFLOP/s",
    )


def bucketing():
    """Texts per second of training on length-bucketed batches, over batches padded to the longest of a shuffled batch.

    The built-in `apidocs` topic set, cut to 64 pieces; the first batches of an epoch, in turns.
    """
    from keras_compress import datasets
    from keras_compress.backend import tf
    from keras_compress.bert.checkpoints import load
    from keras_compress.training.finetune import task_loss
    from keras_compress.training.optimizer import adamw
    from keras_compress.training.settings import Training

    data = datasets.load("apidocs")
    model = load("minilm", task=data.task, labels=data.labels)
    model.model.compile(adamw(Training(), 1000), task_loss(data.task), jit_compile=False)
    step = tf.function(lambda x, y: model.model.train_step((x, y))["loss"], reduce_retracing=True)
    order = np.random.default_rng(0).permutation(len(data.train.texts))
    shuffled = type(data)(
        data.name,
        data.task,
        data.labels,
        type(data.train)(*([column[i] for i in order] for column in data.train)),
    )
    passes = {
        "bucketed": data.batches("train", model.tokenizer, BATCH, 64, shuffle_seed=0, last=42),
        "shuffled": shuffled.batches("train", model.tokenizer, BATCH, 64, last=42),
    }
    iterators = [iter(batches) for batches in passes.values()]
    times = interleave([lambda it=it: step(*next(it)).numpy() for it in iterators], 38, 3).sum(
        axis=1
    )
    return figure(
        "bucketing",
        times[1] / times[0],
        f"bucketed: {38 * BATCH * 1e3 / times[0]:.0f} texts/s",
        f"shuffled, padded to the batch's longest: {38 * BATCH * 1e3 / times[1]:.0f} texts/s (apidocs)",
    )


def pretraining_step():
    """Updates per second of pretraining-study's models over those of its BERT with sentence order, one thread or two as
    TensorFlow is told. In turns: three short runs of each, real batches; the median of a run, then of the runs."""
    from keras_compress import datasets
    from keras_compress.bert.checkpoints import load
    from keras_compress.experiment.recipe import read_recipe, run_step, steps_of

    steps, docs = steps_of(read_recipe("pretraining-study")), datasets.load("apidocs")
    models, speeds = {}, {}
    for step in steps:
        if step.method in ("vocabulary", "from_scratch"):
            parent = models.get(step.source) or load(
                step.source, task=docs.task, labels=docs.labels
            )
            models[step.name] = run_step(step, parent, docs)
    asked = [step for step in steps if step.method == "pretrain"]
    for _ in range(3):
        for step in asked:
            short = {"epochs": 0.15, "evaluations": 1}
            made = run_step(step, models[step.source], docs, **short)
            speeds.setdefault(step.name, []).append(made.history[-1]["steps_per_second"])
    medians = {name: np.median(found) for name, found in speeds.items()}
    base = medians["pretrained-bert-sop"]
    return [
        figure(
            f"pretraining_step, {name.removeprefix('pretrained-')}",
            speed / base,
            f"{speed:.1f} updates/s",
            f"bert-sop: {base:.1f} updates/s",
        )
        for name, speed in medians.items()
    ]


FIGURES = {
    "theseus_step": theseus_step,
    "training_peak": training_peak,
    "bucketing": bucketing,
    "pretraining_step": pretraining_step,
}
