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

import time
from typing import Literal

import numpy as np

from keras_compress.backend import keras
from keras_compress.bert.checkpoints import with_head
from keras_compress.bert.encoder import INPUT_NAMES, LayerStore, task_head
from keras_compress.method import Count, compression, note
from keras_compress.pretraining.masked_lm import choosing_model, masked_accuracy, masked_loss
from keras_compress.pretraining.masking import MaskShare, each_word, mask_words
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
    if task_model.config.type_vocab_size < 2:
        raise ValueError(
            "Pairs of segments need two token types. Received: a model with `type_vocab_size` "
            f"{task_model.config.type_vocab_size}. Take a BERT that has them, or train `masked_lm`."
        )
    tokenizer, length, ordered = task_model.tokenizer, training.max_length, sentence_task != "none"
    # Words are guessed in the same texts, whatever the sentence task.
    pairs, as_written = (
        sentence_pairs(dataset, tokenizer, length, task, seed) for task in (sentence_task, "none")
    )
    model = with_head(task_model, "mlm", (), seed=seed)
    chosen = choosing_model(model)
    outputs, losses = {"mlm": chosen.output["logits"]}, {"mlm": masked_loss}
    if ordered:
        config = model.config.replace(pooling="pooler", pooler_activation="tanh")
        get = LayerStore(config, 10_000 * seed + 5_000)
        last = chosen.output["hidden"], chosen.input["input_mask"]
        _, outputs["sentence"] = task_head(get, "matching", len(LABELS), *last)
        losses["sentence"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    heads = {  # the curve's columns have these names
        name: keras.layers.Activation("linear", name=name)(out) for name, out in outputs.items()
    }
    trained, num_pairs = keras.Model(chosen.input, heads), len(pairs.train.texts)
    num_steps = training.num_steps(num_pairs)
    metrics = {"sentence": "accuracy"} if ordered else None
    trained.compile(adamw(training, num_steps), losses, metrics=metrics, jit_compile=False)

    def mask(step, batch):
        words = each_word(batch[0], tokenizer)
        inputs, targets = mask_words(batch[0], words, tokenizer, [seed, step], mask_share, ngram)
        answers = {"mlm": targets, "sentence": batch[1]}
        return inputs, {name: answers[name] for name in heads}

    def batches(*span):
        return stream(pairs, tokenizer, training, seed, *span).enumerate(span[0]).map(mask)

    def sentence_accuracy():
        judge = keras.Model({name: chosen.input[name] for name in INPUT_NAMES}, heads["sentence"])
        right = [
            np.argmax(judge(inputs, training=False), -1) == labels.numpy()
            for inputs, labels in pairs.batches("dev", tokenizer, training.batch_size, length)
        ]
        return float(np.mean(np.concatenate(right)))

    def measure():
        words = {"dev": masked_accuracy(model, as_written, training, mask_share)}
        return {**words, "dev_sentence": sentence_accuracy()} if ordered else words

    ends = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
    )
    note(num_steps=num_steps, pairs=num_pairs, parameters=model.model.count_params())
    settings = {"seed": seed, "stage": "pretrain", "callbacks": [clock]}
    rows = fit(trained, model, pairs, training, batches=batches, measure=measure, **settings)
    model.curve += rows
    # The median leaves out what happens between updates: tracing, evaluation, checkpoints.
    seconds = float(np.median(np.diff(ends))) if len(ends) > 1 else None
    dev = pairs.dev if ordered else None
    note(
        sentence_accuracy=dev and sentence_accuracy(),
        sentence_pairs=dev and len(dev.texts),
        sentence_by_length=dev and by_length(pairs, tokenizer, length),
        steps_per_second=seconds and 1 / seconds,
        curve=[row for row in rows if "dev" in row],
    )
    return model
