"""Pre-training on masked words together with the order of segments. Lan et al., 2020 (ALBERT), arXiv:1909.11942.

Equation map
    Sec. 3.1   loss = masked words + sentence order (or next sentence), weights 1      pretrain
    Sec. 3.1   what is swapped, or taken from elsewhere                                sentence_pairs.py
    Sec. 4.1   n-gram masks                                                            masking.py
Departures
    AdamW, where the authors use LAMB for their batches of 4,096.
    Pairs are drawn once and read again in every epoch, each time with other words masked.
    The sentence head is dense + tanh on [CLS] and two scores. It is left behind, where the authors
    fine-tune from its dense layer: what comes next has a head of its own.
"""

import statistics
import time
from typing import Literal

import numpy as np

from keras_compress.backend import keras, tf
from keras_compress.bert.checkpoints import with_head
from keras_compress.bert.encoder import INPUT_NAMES, LayerStore, task_head
from keras_compress.method import Count, compression, note
from keras_compress.pretraining.masked_lm import choosing_model, masked_accuracy, masked_loss
from keras_compress.pretraining.masking import MaskShare, check_mask_piece, each_word, mask_words
from keras_compress.pretraining.sentence_pairs import LABELS, by_length, sentence_pairs
from keras_compress.training.loop import fit, stream
from keras_compress.training.optimizer import adamw
from keras_compress.training.settings import Training


@compression(data="unlabelled", trained_head=False)
def pretrain(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    sentence_task: Literal["sop", "nsp", "none"] = "sop",
    ngram: Count = 3,
    mask_share: MaskShare = 0.15,
):
    """Trains on running text: masked words and, as much, a task on pairs of segments.

    Args:
        task_model: `TaskModel`; one of another task gets a new masked-LM head.
        dataset: unlabelled `Dataset`, whose labels number the documents.
        sentence_task: see `sentence_pairs`.
        ngram: most words in a row that are masked together. mask_share: chance of a word.
    Returns:
        `TaskModel` of task "mlm". Its history tells the accuracy of the sentence head on dev, texts
        unmasked (in the curve `dev_sentence`, beside `dev`, the share of masked words guessed), what
        the lengths of the two segments alone would give, and the updates per second.
    """
    check_mask_piece(task_model.tokenizer)
    if task_model.config.type_vocab_size < 2:
        raise ValueError(
            "Pairs of segments need two token types. Received: a model with `type_vocab_size` "
            f"{task_model.config.type_vocab_size}. Take a BERT that has them, or train `masked_lm`."
        )
    tokenizer, length = task_model.tokenizer, training.max_length
    pairs = sentence_pairs(dataset, tokenizer, length, sentence_task, seed)
    # Words are guessed in the same texts, whatever the sentence task.
    as_written = sentence_pairs(dataset, tokenizer, length, "none", seed)
    model = with_head(task_model, "mlm", (), seed=seed)
    chosen = choosing_model(model)
    heads, losses = {"mlm": chosen.output["logits"]}, {"mlm": masked_loss}
    if sentence_task != "none":
        get = LayerStore(model.config.replace(pooling="pooler"), 10_000 * seed + 5_000)
        _, heads["sentence"] = task_head(
            get, "matching", len(LABELS), chosen.output["hidden"], chosen.input["input_mask"]
        )
        losses["sentence"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    heads = {  # the curve's columns have these names
        name: keras.layers.Activation("linear", name=name)(scores) for name, scores in heads.items()
    }
    trained = keras.Model(chosen.input, heads)
    num_pairs = len(pairs.train.texts)
    num_steps = training.num_steps(num_pairs)
    metrics = {name: "accuracy" for name in heads if name == "sentence"}
    trained.compile(adamw(training, num_steps), losses, jit_compile=False, metrics=metrics)

    def mask(step, batch):
        words, draw = each_word(batch[0], tokenizer), [seed, step]
        inputs, targets = mask_words(batch[0], words, tokenizer, draw, mask_share, ngram)
        answers = {"mlm": targets, "sentence": batch[1]}
        return {**inputs, "targets": targets}, {name: answers[name] for name in heads}

    judge = None
    if "sentence" in heads and pairs.dev:
        judge = keras.Model({name: chosen.input[name] for name in INPUT_NAMES}, heads["sentence"])

    def sentence_accuracy():
        right = [
            tf.argmax(judge(inputs, training=False), -1).numpy() == labels.numpy()
            for inputs, labels in pairs.batches("dev", tokenizer, training.batch_size, length)
        ]
        return float(np.mean(np.concatenate(right)))

    def measure():
        words = {"dev": masked_accuracy(model, as_written, training, mask_share)}
        return {**words, "dev_sentence": sentence_accuracy()} if judge else words

    clock = StepClock()
    note(num_steps=num_steps, pairs=num_pairs, parameters=model.model.count_params())
    rows = fit(
        trained,
        model,
        pairs,
        training,
        seed=seed,
        stage="pretrain",
        batches=lambda first, last: (
            stream(pairs, tokenizer, training, seed, first, last).enumerate(first).map(mask)
        ),
        callbacks=[clock],
        measure=measure,
    )
    model.curve += rows
    note(
        sentence_accuracy=judge and sentence_accuracy(),
        sentence_pairs=judge and len(pairs.dev.texts),
        sentence_by_length=judge and by_length(pairs, tokenizer, length),
        steps_per_second=clock.steps_per_second(),
        curve=[row for row in rows if "dev" in row],
    )
    return model


class StepClock(keras.callbacks.Callback):
    """Times updates. The median leaves out what happens between them: tracing, evaluation, checkpoints."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())

    def steps_per_second(self):
        """Updates per second, None if there were fewer than two."""
        gaps = [after - before for before, after in zip(self.ends, self.ends[1:])]
        return 1 / statistics.median(gaps) if gaps else None
