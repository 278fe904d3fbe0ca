"""Head pruning: attention heads and feed-forward neurons that matter least are cut out. Michel et al., 2019, arXiv:1905.10650.

Equation map
    Sec. 2.3   MHAtt(x) = sum_h xi_h Att_h(x); xi_h = 0 masks a head, 1 leaves it    importance, xi = 1
    Eq. 2      I_h = E_x |dL(x) / dxi_h| = E_x |Att_h(x)^T dL(x) / dAtt_h(x)|        importance
    Sec. 4     I of a layer is divided by its l2 norm; the least important go        choose
    Sec. 4     a share at a time, I anew each time                                   compress
    FastFormers (Kim & Awadalla, 2020, arXiv:2010.13382), DynaBERT (Hou et al., 2020, arXiv:2004.04037):
               the same I for feed-forward neurons; the same share in each layer     even=True
What is cut is gone, columns of query, key and value and rows of the output kernel: the model is smaller and
faster in any runtime, and answers as with masked heads.
Departures
    The absolute value is taken per text, as the paper writes; the authors' code takes it per token (unit="token").
    The best head and neuron of each layer stay.
    The share that goes is given; the paper's Sec. 4 goes on and watches the metric.
    The paper leaves the pruned model as it is (tune_after=False); FastFormers and DynaBERT train it afterwards.
"""

import math
from typing import Literal

import numpy as np

from keras_compress.backend import keras, tf
from keras_compress.bert.tasks import TASKS
from keras_compress.measure.accuracy import evaluate
from keras_compress.method import BelowOne, Count, compression, note
from keras_compress.training.finetune import task_loss, tune
from keras_compress.training.loop import stream
from keras_compress.training.settings import Training

# What is cut: {part: (Dense layers that make it, Dense layer that reads it, field of `BertConfig`)}.
PARTS = {
    "heads": (["query", "key", "value"], "attention_output", "heads_per_layer"),
    "neurons": (["intermediate"], "output", "ffn_per_layer"),
}


def sizes_of(config):
    """How many units of each part each layer has."""
    return {"heads": config.heads, "neurons": config.ffn_sizes}


def importance(task_model, batches, unit="example"):
    """I, the mean over texts of |dL / dxi|, for a gate xi = 1 on each head and on each neuron.

    Args:
        task_model: `TaskModel` whose layers share no weights. L: loss of its task in nats, of a tagger the words' sum.
        batches: iterable of (inputs, labels), as from `loop.stream`.
        unit: the absolute value is taken of each "example", or of each "token", then summed over the tokens.
    Returns:
        {"heads": [float (heads,) of each layer], "neurons": [float (neurons,) of each layer]}.
    """
    sizes, model = sizes_of(task_model.config), task_model.clone().model
    loss_of, layers = task_loss(task_model.task), range(task_model.config.num_layers)
    per_token = TASKS[task_model.task].per_token
    read = {
        part: [model.get_layer(f"layer_{n}_{reader}").input for n in layers]
        for part, (_, reader, _) in PARTS.items()
    }
    gated = keras.Model(model.input, {"logits": model.output, **read})

    def slopes(size, context, gradient):
        # dL / dxi_h = Att_h^T dL / dAtt_h                       (batch, seq, heads)
        shape = tf.concat([tf.shape(context)[:2], [size, -1]], axis=0)
        slope = tf.reduce_sum(tf.reshape(context * gradient, shape), axis=-1)
        if unit == "example":
            slope = tf.reduce_sum(slope, axis=1, keepdims=True)
        return tf.reduce_sum(tf.abs(slope), axis=(0, 1))  # (heads,)

    @tf.function(reduce_retracing=True)
    def of_batch(inputs, labels):
        with tf.GradientTape() as tape:
            outputs = gated(inputs, training=False)
            logits = outputs.pop("logits")
            # The sum over texts, or words: a mean would let each text's gradient depend on its batch.
            counts = labels >= 0 if per_token else tf.ones(tf.shape(logits)[:1])
            loss = loss_of(labels, logits) * tf.reduce_sum(tf.cast(counts, tf.float32))
        gradients = tape.gradient(loss, outputs)
        return [[*map(slopes, sizes[part], outputs[part], gradients[part])] for part in PARTS]

    sums, number = [], 0
    for inputs, labels in batches:
        sums.append(of_batch(inputs, labels))
        number += len(labels)
    of_parts = [[sum(layer).numpy() / number for layer in zip(*part)] for part in zip(*sums)]
    return dict(zip(PARTS, of_parts))


def choose(importances, number, even=False):
    """The units that stay when the `number` least important go; the best of each layer stays.

    Args:
        importances: list of float (units,), one per layer.
        even: the same share in each layer, in place of the least important ones of all layers.
    Returns:
        list of int arrays, rising, one per layer.
    """
    ranks = []
    for each in importances:
        scaled = each / max(np.linalg.norm(each), 1e-30)
        rank = np.argsort(np.argsort(each)) / len(each) if even else scaled
        rank[np.argmax(each)] = np.inf
        ranks.append(rank)
    stays = np.ones(sum(map(len, ranks)), bool)
    stays[np.argsort(np.concatenate(ranks), kind="stable")[:number]] = False
    ends = np.cumsum([len(rank) for rank in ranks])
    return [np.flatnonzero(part) for part in np.split(stays, ends[:-1])]


def cut(task_model, part, kept, *, seed=0):
    """A smaller model that has only some heads or neurons of each layer.

    Args:
        task_model: `TaskModel` whose layers share no weights. part: "heads" or "neurons".
        kept: the units that stay, rising ints, one list per layer.
    Returns:
        `TaskModel`. It answers as the whole model does with xi = 0 for the other units.
    Raises:
        ValueError: if no unit of a layer stays.
    """
    if empty := [layer for layer, units in enumerate(kept) if not len(units)]:
        raise ValueError(
            f"Every layer must keep one of its {part}. Received: none for layers {empty}. Keep one; "
            "whole layers are taken out by the method `layers`."
        )
    (makers, reader, field), weights = PARTS[part], task_model.weights()
    size = task_model.config.head_size if part == "heads" else 1
    for layer, units in enumerate(kept):
        rows = (np.asarray(units)[:, None] * size + np.arange(size)).ravel()
        for name in (f"layer_{layer}_{maker}" for maker in makers):
            weights[f"{name}/kernel"] = weights[f"{name}/kernel"][:, rows]
            weights[f"{name}/bias"] = weights[f"{name}/bias"][rows]
        weights[f"layer_{layer}_{reader}/kernel"] = weights[f"layer_{layer}_{reader}/kernel"][rows]
    config = task_model.config.replace(**{field: [len(units) for units in kept]})
    return task_model.rebuilt(config, weights, seed=seed)


@compression(bert=True)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    heads: BelowOne = 0.4,
    neurons: BelowOne = 0.0,
    steps: Count = 4,
    unit: Literal["example", "token"] = "example",
    even: bool = False,
    num_texts: Count = 1000,
    tune_after: bool = True,
):
    """Cuts heads and feed-forward neurons out of a trained model, then fine-tunes what is left.

    Args:
        task_model: layers that share weights get weights of their own.
        heads, neurons: shares of all heads and of all neurons that go; 0: none.
        steps: equal parts in which they go; importance is computed anew before each. 1: at once.
        unit: see `importance`, on `num_texts` of train. even: see `choose`.
        tune_after: fine-tune; else the weights stay what they were.
    Returns:
        `TaskModel`. Its history has the numbers of the `kept_heads` of each layer, how many `kept_neurons`, and
        the `importance` of all heads at the start; its curve the metric on dev after each step.
    """
    small = task_model.keep_layers(range(task_model.config.num_layers), seed=seed)
    sizes, number = sizes_of(small.config), {}
    for part, share in (("heads", heads), ("neurons", neurons)):
        units, most = sum(sizes[part]), sum(sizes[part]) - len(sizes[part])
        number[part] = round(share * units)
        if number[part] > most:
            raise ValueError(
                f"`{part}` must leave one in each layer. Received: {share}, {number[part]} of {units}. "
                f"Lower it to {math.floor(100 * most / units) / 100}."
            )
    kept, found = {part: [np.arange(size) for size in sizes[part]] for part in PARTS}, []
    num_batches = math.ceil(min(num_texts, len(dataset.train.texts)) / training.batch_size)
    for step in range(steps):
        batches = stream(dataset, small.tokenizer, training, seed, 0, num_batches)
        found.append(importance(small, batches, unit))
        for part in filter(number.get, PARTS):  # 0: the part stays whole
            goes = number[part] * (step + 1) // steps - number[part] * step // steps
            stay = choose(found[-1][part], goes, even)
            small = cut(small, part, stay, seed=seed)
            kept[part] = [before[units] for before, units in zip(kept[part], stay)]
        if dataset.dev and training.evaluations:
            dev = evaluate(small, dataset.dev)["value"]
            small.curve.append({"stage": "heads", "step": step + 1, "dev": dev})
    if tune_after:
        tune(small, dataset, seed=seed, training=training)
    note(
        kept_heads=[units.tolist() for units in kept["heads"]],
        kept_neurons=small.config.ffn_sizes,
        importance=[each.tolist() for each in found[0]["heads"]],
    )
    return small
