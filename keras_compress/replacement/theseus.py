"""BERT-of-Theseus: compression by progressive module replacing. Xu et al., 2020, arXiv:2002.02925.

A fine-tuned *predecessor* of N layers is cut into M modules. Each has a *successor* module of one layer.
In training every module is replaced by its successor at random, and the task's own loss teaches the
successors to fit in; there is no distillation loss. In the end the successors alone are the small
model, which is fine-tuned.

Equation map
    Sec. 3.1   y_{i+1} = r_i * scc_i(y_i) + (1 - r_i) * prd_i(y_i), r_i ~ Bernoulli(p)   ModuleMix.call
    Sec. 3.1   the draw r_i, one per module and batch                                     ModuleMix.draw
    Sec. 3.1   only the successors train; embeddings and head are the predecessor's        build_theseus
    Sec. 3.2   successor fine-tuning                                                       compress, last line
    Sec. 3.3   p(t) = min(1, k t + b)                                                      linear_rate
    authors' code   constant rate, 1 from a given step on                                  constant_rate
Departures
    `rate` is everywhere the chance of the *successor* (some ports use the opposite sense).
    A successor starts from the last layer of its own module; start="bottom" is the authors' way, the
    predecessor's first M layers (2 of 6 layers, dev: 4 points less on `assistant`, 2 on SST-2; see
    data/results/theseus-study).
    AdamW moves a module that was not drawn by momentum and decay, since its gradient is zero, not absent.
    So does the authors' code: their `zero_grad` leaves zeros, too, after a module's first draw.
    Gates the paper does not have, for comparison: "uniform" (r = u^((1-p)/p), u ~ U[0, 1]: mean p, and
    plain U[0, 1] at p = 0.5), "anneal" (r = p), and one draw per example instead of per batch.
    The learning rate has a warm-up and weights decay by .01; the authors have neither. They clip the norm
    over all parameters, frozen ones included; here it is taken over what trains.
    A constant rate is 1 after `full_at` of the updates; the authors' default is 1 after the first update.
    One learning-rate schedule spans both stages, AdamW's moments start anew in the second; the authors go
    on in one optimizer run. The last stage goes through the texts from the first epoch's order again.
    Dropout is active in both branches while training, as theirs is.
    The last stage trains everything; train_head_last=False trains the successor layers alone, as theirs.
"""

import functools
import math
from typing import Literal

from keras_compress.backend import keras, tf
from keras_compress.bert.encoder import LayerStore, embed, make_inputs, task_head, transformer_layer
from keras_compress.bert.layer_maps import check_multiple
from keras_compress.bert.layers import AttentionBias
from keras_compress.method import BelowOne, Count, Share, compression, note
from keras_compress.training.finetune import task_loss, tune
from keras_compress.training.loop import fit
from keras_compress.training.optimizer import adamw
from keras_compress.training.settings import Training

Gate = Literal["bernoulli", "uniform", "anneal"]
Granularity = Literal["batch", "sample"]


class ModuleMix(keras.layers.Layer):
    """One module of the predecessor and its successor, of which training draws one. It is never saved.

    Per-batch Bernoulli gates compute only the module drawn; the other gates need both. Inference is the successor.
    The draw is a stateless function of seed, step and module, so that replicas and resumed runs draw alike.

    Args:
        predecessor, successor: `keras.Model`s that take the same list of inputs to one output of the same shape.
        index: number of the module.
        gate: "bernoulli", "uniform" or "anneal". granularity: a draw per "batch" or per "sample".
    Weights:
        rate: chance of the successor. step: number of the update. Both not trainable; set from outside.
    """

    def __init__(self, predecessor, successor, index, gate, granularity, seed, **kwargs):
        super().__init__(**kwargs)
        self.predecessor, self.successor = predecessor, successor
        self.index, self.gate, self.granularity, self.seed = index, gate, granularity, seed
        state = {"shape": (), "initializer": "zeros", "trainable": False}
        self.rate = self.add_weight("rate", **state)
        self.step = self.add_weight("step", dtype="int64", **state)

    def draw(self, shape=()):
        """r_i of the current step: float of `shape`, 0 or 1 for Bernoulli gates."""
        if self.gate == "anneal":
            return tf.fill(shape, self.rate)
        seed = tf.stack([self.seed * 1000 + self.index, self.step])
        if self.granularity == "sample":  # each replica has texts of its own
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            seed = tf.random.experimental.stateless_fold_in(seed, replica)
        u = tf.random.stateless_uniform(shape, seed=seed)
        if self.gate == "bernoulli":
            return tf.cast(u < self.rate, tf.float32)
        return tf.pow(u, (1.0 - self.rate) / tf.maximum(self.rate, 1e-6))

    def call(self, inputs, training=None):
        scc = functools.partial(self.successor, inputs, training=bool(training))
        prd = functools.partial(self.predecessor, inputs, training=True)
        if not training:
            return scc()
        if (self.gate, self.granularity) == ("bernoulli", "batch"):
            return tf.cond(self.draw() > 0.0, scc, prd)  # Sec. 3.1, r_i in {0, 1}
        r = self.draw((tf.shape(inputs[0])[0], 1, 1) if self.granularity == "sample" else ())
        return r * scc() + (1.0 - r) * prd()  # Sec. 3.1


def constant_rate(rate, steps=math.inf):
    """p(t) = `rate` before step `steps`, then 1; without `steps` always `rate`."""
    return lambda step: rate if step < steps else 1.0


def linear_rate(base, k):
    """p(t) = min(1, k t + b): the curriculum of Sec. 3.3. `k` is per update: rescale it with the batch size."""
    return lambda step: min(1.0, k * step + base)


def cosine_rate(base, steps):
    """From `base` to 1 in `steps` updates along half a cosine."""
    return lambda step: (
        base + (1.0 - base) * 0.5 * (1.0 - math.cos(math.pi * min(step / steps, 1.0)))
    )


class ReplacingRate(keras.callbacks.Callback):
    """Sets `rate` and `step` of every module before each update. They are variables, so nothing is traced again.

    Args:
        mixes: list of `ModuleMix`. schedule: step -> rate.
    """

    def __init__(self, mixes, schedule):
        super().__init__()
        self.mixes, self.schedule = mixes, schedule

    def on_train_batch_begin(self, batch, logs=None):
        step = int(self.model.optimizer.iterations.numpy())
        for mix in self.mixes:
            mix.rate.assign(self.schedule(step))
            mix.step.assign(step)

    def on_epoch_end(self, epoch, logs=None):
        logs["replacing_rate"] = float(self.mixes[0].rate.numpy())


def cut_into_modules(num_layers, num_modules, module_map=None):
    """The layers of each module: `module_map`, or M modules of equal size.

    Raises:
        ValueError: if M does not divide N, or the map does not hold every layer once, in order.
    """
    if module_map is None:
        check_multiple(num_layers, num_modules, "modules of equal size", "give a `module_map`")
        size = num_layers // num_modules
        return [list(range(i * size, (i + 1) * size)) for i in range(num_modules)]
    layers = list(range(num_layers))
    if sum(module_map, []) != layers or [] in module_map or len(module_map) != num_modules:
        raise ValueError(
            f"`module_map` must be `num_layers` lists that hold every layer from 0 to {num_layers - 1} once, in "
            f"order, none empty. Received: {module_map} and {num_modules}. For example [{layers[:1]}, {layers[1:]}]."
        )
    return module_map


def build_theseus(
    predecessor,
    successor,
    module_map,
    *,
    embeddings="shared",
    gate="bernoulli",
    granularity="batch",
    seed=0,
):
    """Builds the model that trains: embeddings, M mixed modules, head, on the layers of the two models.

    Args:
        predecessor, successor: `TaskModel`s; their layers are used, not copied, and the predecessor's are frozen.
        module_map: list of M lists of predecessor layers.
        embeddings: "shared" (frozen) or "separate" (the successor's train and are gated like a module).
    Returns:
        (`keras.Model` from the usual inputs to logits, list of `ModuleMix`). The head is the successor's, frozen.
    """
    ours, theirs = (LayerStore(m.config, existing=m.model.layers) for m in (successor, predecessor))
    predecessor.model.trainable, separate = False, embeddings == "separate"
    for layer in successor.model.layers:
        of_embeddings = separate and "embeddings" in layer.name
        layer.trainable = layer.name.startswith("layer_") or of_embeddings
    inputs, mixes = make_inputs(), []
    bias = AttentionBias(name="attention_bias")(inputs["input_mask"])
    ids = [inputs["input_word_ids"], inputs["input_type_ids"]]

    def mix(index, kept, replaced):
        mixes.append(ModuleMix(kept, replaced, index, gate, granularity, seed))
        return mixes[-1]

    if separate:
        x = mix(-1, _embedding_module(theirs), _embedding_module(ours))(ids)
    else:
        x = embed(ours, *ids)
    for index, layers in enumerate(module_map):
        x = mix(index, _module(theirs, layers), _module(ours, [index]))([x, bias])
    _, logits = task_head(ours, successor.task, len(successor.labels), x, inputs["input_mask"])
    return keras.Model(inputs, logits, name="theseus"), mixes


def _module(get, layers):
    """Some layers of a model as a model of their own: [hidden states, bias] -> hidden states."""
    x, bias = inputs = [keras.Input((None, get.config.hidden_size)), keras.Input((1, 1, None))]
    for layer in layers:
        x, _ = transformer_layer(get, layer, x, bias)
    return keras.Model(inputs, x)


def _embedding_module(get):
    ids = [keras.Input((None,), dtype="int32") for _ in range(2)]
    return keras.Model(ids, embed(get, *ids))


@compression(bert=True)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers: Count | None = None,
    module_map: list[list[int]] | None = None,
    schedule: Literal["linear", "constant", "cosine"] = "linear",
    rate: Share = 0.3,
    full_at: Share = 0.7,
    start: Literal["own", "bottom"] = "own",
    gate: Gate = "bernoulli",
    granularity: Granularity = "batch",
    embeddings: Literal["shared", "separate"] = "shared",
    train_head_last: bool = True,
    finetune_share: BelowOne = 0.4,
):
    """Compresses a fine-tuned model by module replacing, then fine-tunes the successor.

    Args:
        task_model: the predecessor, `TaskModel`.
        training: of both stages together: `finetune_share` of the updates are the last stage's, and one
            learning-rate schedule spans both.
        num_layers: layers M of the successor; default: 3, or the length of `module_map`.
        module_map: list of M lists of layers, in order; default: M modules of equal size.
        schedule: "linear" (Sec. 3.3), "cosine" or "constant". rate: where it starts.
        full_at: share of the replacing stage after which the rate is 1.
        start: where the successor's layers start: "own": at the last layer of each one's module;
            "bottom": at the predecessor's bottom M.
        gate, granularity, embeddings: see `ModuleMix` and `build_theseus`.
        train_head_last: whether embeddings and head train in the last stage too.
    Returns:
        `TaskModel` of M layers that holds no weight of the predecessor's layers.
    """
    num_modules = num_layers or (len(module_map) if module_map else 3)
    modules = cut_into_modules(task_model.config.num_layers, num_modules, module_map)
    note(num_layers=num_modules, module_map=modules, optimizer="AdamW")
    kept = [module[-1] for module in modules] if start == "own" else range(num_modules)
    total = training.num_steps(len(dataset.train.texts))
    num_finetune = min(round(finetune_share * total), total - 1)
    num_replacing = total - num_finetune
    full_step = max(1, round(full_at * num_replacing))
    rates = {
        "constant": constant_rate(rate, full_step),
        "linear": linear_rate(rate, (1.0 - rate) / full_step),
        "cosine": cosine_rate(rate, full_step),
    }
    successor = task_model.keep_layers(kept, seed=seed)
    gates = {"embeddings": embeddings, "gate": gate, "granularity": granularity, "seed": seed}
    predecessor = task_model.clone(seed=seed + 1)
    mixed, mixes = build_theseus(predecessor, successor, modules, **gates)
    mixed.compile(adamw(training, total), task_loss(successor.task), jit_compile=False)
    successor.curve += fit(
        mixed,
        successor,
        dataset,
        training.replace(patience=None),  # while old modules help, dev says little
        seed=seed,
        stage="replace",
        num_steps=num_replacing,
        callbacks=[ReplacingRate(mixes, rates[schedule])],
    )
    successor = successor.clone(seed=seed)  # holds no layer of the mixed model any more
    if not num_finetune:
        return successor
    return tune(
        successor,
        dataset,
        seed=seed,
        training=training,
        num_steps=num_finetune,
        first_step=num_replacing,
        only="" if train_head_last else "layer_",
    )
