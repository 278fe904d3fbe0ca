"""BERT-of-Theseus: compression by progressive module replacing. Xu et al., 2020, arXiv:2002.02925.

A fine-tuned *predecessor* of N layers is cut into M modules. Each has a *successor* module of one layer. In training
every module is replaced by its successor at random, and the task's own loss teaches the successors to fit in; there
is no distillation loss. In the end the successors alone are the small model, which is fine-tuned.

Equation map
    Sec. 3.1   y_{i+1} = r_i * scc_i(y_i) + (1 - r_i) * prd_i(y_i), r_i ~ Bernoulli(p)      ModuleMix.call
    Sec. 3.1   the draw r_i, one per module and batch                                        ModuleMix.draw
    Sec. 3.1   only the successors train; embeddings and head are the predecessor's           build_theseus
    Sec. 3.2   successor fine-tuning                                                          compress, last line
    Sec. 3.3   p(t) = min(1, k t + b)                                                         linear_rate
    authors' code   constant rate, 1 from a given step on                                     constant_rate
Departures
    `rate` is everywhere the chance of the *successor* (some ports use the opposite sense).
    A successor starts from the last layer of its own module; start="bottom" is the authors' way, the predecessor's
    first M layers (2 of 6 layers, dev: 4 points less on `assistant`, 2 on SST-2; see data/results/README.md).
    A batch that does not draw a module leaves its weights and moments alone, as the authors' code does; but Adam's
    step count, hence its bias correction, goes on for all modules together.
    Gates the paper does not have, for comparison: "uniform" (r = u^((1-p)/p), u ~ U[0, 1]: mean p, and plain
    U[0, 1] at p = 0.5), "anneal" (r = p), and one draw per example instead of per batch.
    One learning-rate schedule with warm-up spans both stages, AdamW's moments start anew in the second; the authors go
    on in one optimizer run, without warm-up. The last stage goes through the texts from the first epoch's order again,
    so that some are seen once more often than others. Dropout is active in both branches while training, as theirs is.
    The last stage trains everything; `train_head_last=False` trains the successor layers alone, as the authors do.
"""

import math

from keras_compress.backend import keras, tf
from keras_compress.bert.encoder import LayerStore, embed, make_inputs, task_head, transformer_layer
from keras_compress.bert.layer_maps import check_multiple
from keras_compress.bert.layers import AttentionBias, register
from keras_compress.training.loop import (
    AdamW,
    adamw,
    check_fit,
    check_trained,
    finetune,
    fit,
    task_loss,
)
from keras_compress.training.settings import Training, check_choice

GATES, GRANULARITIES = ("bernoulli", "uniform", "anneal"), ("batch", "sample")
SCHEDULES, STARTS = ("constant", "linear", "cosine"), ("own", "bottom")
NUM_LAYERS = 3


@register
class ModuleMix(keras.layers.Layer):
    """One module of the predecessor and its successor, of which training draws one.

    Per-batch Bernoulli gates compute only the module drawn; the other gates need both. Inference is the successor.
    The draw is a stateless function of seed, step and module, so that replicas and resumed runs draw alike.

    Args:
        predecessor, successor: `keras.Model`s that take the same list of inputs to one output of the same shape.
        index: number of the module.
        gate: "bernoulli", "uniform" or "anneal". granularity: a draw per "batch" or per "sample".
    Weights:
        rate: chance of the successor. step: number of the update. Both not trainable; set from outside.
    """

    def __init__(
        self, predecessor, successor, index, gate="bernoulli", granularity="batch", seed=0, **kwargs
    ):
        super().__init__(**kwargs)
        check_choice("gate", gate, GATES)
        check_choice("granularity", granularity, GRANULARITIES)
        self.predecessor, self.successor = predecessor, successor
        self.index, self.gate, self.granularity, self.seed = index, gate, granularity, seed
        self.rate = self.add_weight(name="rate", shape=(), initializer="zeros", trainable=False)
        self.step = self.add_weight(
            name="step", shape=(), dtype="int64", initializer="zeros", trainable=False
        )

    def draw(self, shape=()):
        """r_i of the current step: bool of `shape` for Bernoulli gates, else float."""
        if self.gate == "anneal":
            return tf.fill(shape, self.rate)
        seed = tf.stack([self.seed * 1000 + self.index, self.step])
        if self.granularity == "sample":  # each replica has texts of its own
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            seed = tf.random.experimental.stateless_fold_in(seed, replica)
        uniform = tf.random.stateless_uniform(shape, seed=seed)
        if self.gate == "bernoulli":
            return uniform < self.rate
        return tf.pow(uniform, (1.0 - self.rate) / tf.maximum(self.rate, 1e-6))

    def call(self, inputs, training=None):
        if not training:
            return self.successor(inputs, training=False)
        replaced = lambda: self.successor(inputs, training=True)  # noqa: E731
        kept = lambda: self.predecessor(inputs, training=True)  # noqa: E731
        if self.gate == "bernoulli" and self.granularity == "batch":
            return tf.cond(self.draw(), replaced, kept)  # Sec. 3.1, r_i in {0, 1}
        r = self.draw((tf.shape(inputs[0])[0], 1, 1) if self.granularity == "sample" else ())
        if self.gate == "bernoulli":
            return tf.where(r, replaced(), kept())
        return r * replaced() + (1.0 - r) * kept()  # Sec. 3.1

    def get_config(self):
        return {
            **super().get_config(),
            "index": self.index,
            "gate": self.gate,
            "granularity": self.granularity,
            "seed": self.seed,
            "predecessor": keras.saving.serialize_keras_object(self.predecessor),
            "successor": keras.saving.serialize_keras_object(self.successor),
        }

    @classmethod
    def from_config(cls, config):
        modules = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("predecessor", "successor")
        }
        return cls(**{**config, **modules})


@register
class DrawnAdamW(keras.optimizers.AdamW):
    """AdamW that leaves a module that was not drawn alone: its weights, its moments, its decay.

    `tf.cond` gives such a module gradients of zero, not none, and momentum and decay would still move it.
    """

    def follow(self, mixes):
        """Ties every weight of the successors to the draw of its module."""
        self.draws = {
            self._var_key(v): mix.draw for mix in mixes for v in mix.successor.trainable_variables
        }

    def _apply_weight_decay(self, variables):
        """Decay is part of `update_step` here, since it depends on the draw."""

    def update_step(self, gradient, variable):
        """Loshchilov & Hutter, 2019, Alg. 2, every change times 0 or 1."""
        key, gradient = self._var_key(variable), tf.convert_to_tensor(gradient)
        m, v = self._momentums[self._index_dict[key]], self._velocities[self._index_dict[key]]
        drawn = tf.cast(self.draws[key](), variable.dtype)
        t, rate = (
            tf.cast(self.iterations + 1, variable.dtype),
            tf.cast(self.learning_rate, variable.dtype),
        )
        decay = self.weight_decay if self._use_weight_decay(variable) else 0.0
        m.assign_add(drawn * (1.0 - self.beta_1) * (gradient - m))
        v.assign_add(drawn * (1.0 - self.beta_2) * (tf.square(gradient) - v))
        corrected = tf.sqrt(1.0 - self.beta_2**t) / (1.0 - self.beta_1**t)
        change = corrected * m / (tf.sqrt(v) + self.epsilon) + decay * variable
        variable.assign_sub(drawn * rate * change)


def constant_rate(rate, steps=None):
    """p(t) = `rate` before step `steps`, then 1; without `steps` always `rate`."""
    return lambda step: 1.0 if steps is not None and step >= steps else rate


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


def even_modules(num_layers, num_modules):
    """Cuts N layers into M modules of N / M. Raises ValueError if M does not divide N."""
    check_multiple(num_layers, num_modules, "modules of equal size", "give a `module_map`")
    size = num_layers // num_modules
    return [list(range(i * size, (i + 1) * size)) for i in range(num_modules)]


def check_module_map(module_map, num_layers):
    """Raises ValueError unless the modules hold every layer once, in order."""
    whole = list(range(num_layers))
    try:
        modules = [[*module] for module in module_map]
    except TypeError:
        modules = []
    if [] in modules or repr(sum(modules, [])) != repr(whole):  # True is no layer
        raise ValueError(
            f"`module_map` must be lists that hold every layer from 0 to {num_layers - 1} once, in order, "
            f"none of them empty. Received: {module_map}. For example {[whole[:1], whole[1:]]}."
        )
    return modules


def check_layers(depth, *, num_layers=NUM_LAYERS, module_map=None, **_):
    """How many layers the successor has. Raises ValueError if modules cannot cover a predecessor of `depth` layers."""
    return len(
        even_modules(depth, num_layers)
        if module_map is None
        else check_module_map(module_map, depth)
    )


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
    check_choice("embeddings", embeddings, ("shared", "separate"))
    ours, theirs = (LayerStore(m.config, existing=m.model.layers) for m in (successor, predecessor))
    predecessor.model.trainable = False
    for layer in successor.model.layers:
        layer.trainable = layer.name.startswith("layer_")
    mix_settings = {"gate": gate, "granularity": granularity, "seed": seed}
    inputs, mixes = make_inputs(), []
    bias = AttentionBias(name="attention_bias")(inputs["input_mask"])
    ids = [inputs["input_word_ids"], inputs["input_type_ids"]]
    if embeddings == "shared":
        x = embed(ours, *ids)
    else:
        for layer in successor.model.layers:
            layer.trainable |= "embeddings" in layer.name
        mixes.append(
            ModuleMix(
                _embedding_module(theirs),
                _embedding_module(ours),
                -1,
                name="mix_embeddings",
                **mix_settings,
            )
        )
        x = mixes[-1](ids)
    for index, layers in enumerate(module_map):
        mixes.append(
            ModuleMix(
                _module(theirs, layers),
                _module(ours, [index]),
                index,
                name=f"mix_{index}",
                **mix_settings,
            )
        )
        x = mixes[-1]([x, bias])
    _, logits = task_head(ours, successor.task, len(successor.labels), x, inputs["input_mask"])
    return keras.Model(inputs, logits, name="theseus"), mixes


def _module(get, layers):
    """Some layers of a model as a model of their own: [hidden states, bias] -> hidden states."""
    start, bias = keras.Input((None, get.config.hidden_size)), keras.Input((1, 1, None))
    x = start
    for layer in layers:
        x, _ = transformer_layer(get, layer, x, bias)
    return keras.Model([start, bias], x)


def _embedding_module(get):
    ids = [keras.Input((None,), dtype="int32") for _ in range(2)]
    return keras.Model(ids, embed(get, *ids))


def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers=NUM_LAYERS,
    module_map=None,
    schedule="linear",
    rate=0.3,
    full_at=0.7,
    start="own",
    gate="bernoulli",
    granularity="batch",
    embeddings="shared",
    train_head_last=True,
    finetune_share=0.4,
):
    """Compresses a fine-tuned model by module replacing, then fine-tunes the successor.

    Args:
        task_model: the predecessor, `TaskModel`; left as it is.
        training: of both stages together: `finetune_share` of the updates are the last stage's, and one learning-rate
            schedule spans both.
        num_layers: layers M of the successor.
        module_map: list of M lists of layers, in order; default: M modules of equal size. With a map `num_layers` may
            be left out.
        schedule: "linear" (Sec. 3.3), "cosine" or "constant". rate: where it starts.
        full_at: share of the replacing stage after which the rate is 1.
        start: where the successor's layers start: "own": at the last layer of each one's module; "bottom": at the
            predecessor's bottom M.
        gate, granularity, embeddings: see `ModuleMix` and `build_theseus`.
        train_head_last: whether embeddings and head train in the last stage too.
    Returns:
        `TaskModel` of M layers that holds no weight of the predecessor's layers.
    Raises:
        ValueError: if the modules do not cover the predecessor, or a setting is unknown.
    """
    check_fit(task_model, dataset)
    check_trained(task_model)
    check_choice("schedule", schedule, SCHEDULES)
    check_choice("start", start, STARTS)
    if not (0.0 <= rate <= 1.0 and 0.0 < full_at <= 1.0 and 0.0 <= finetune_share < 1.0):
        raise ValueError(
            "`rate` must be in [0, 1], `full_at` in (0, 1], `finetune_share` in [0, 1). "
            f"Received: {rate}, {full_at}, {finetune_share}."
        )
    depth = task_model.config.num_layers
    module_map = (
        even_modules(depth, num_layers)
        if module_map is None
        else check_module_map(module_map, depth)
    )
    if num_layers not in (len(module_map), NUM_LAYERS):
        raise ValueError(
            "`num_layers` must be the number of modules in `module_map`. "
            f"Received: {num_layers} and {len(module_map)}. Leave it out."
        )
    kept = [module[-1] for module in module_map] if start == "own" else range(len(module_map))
    total = training.num_steps(len(dataset.train.texts))
    num_finetune = min(round(finetune_share * total), total - 1)
    num_replacing = total - num_finetune
    full_step = max(1, round(full_at * num_replacing))
    schedules = {
        "constant": constant_rate(rate, full_step),
        "linear": linear_rate(rate, (1.0 - rate) / full_step),
        "cosine": cosine_rate(rate, full_step),
    }
    with training.scope():
        successor = task_model.keep_layers(kept, seed=seed)
        mixed, mixes = build_theseus(
            task_model.clone(seed=seed + 1),
            successor,
            module_map,
            embeddings=embeddings,
            gate=gate,
            granularity=granularity,
            seed=seed,
        )
        drawn_alone = gate == "bernoulli" and granularity == "batch"
        optimizer = adamw(training, total, DrawnAdamW if drawn_alone else AdamW)
        if drawn_alone:
            optimizer.follow(mixes)
        mixed.compile(optimizer, task_loss(successor.task), jit_compile=False)
    replacing = training.replace(
        patience=None
    )  # while old modules help, dev says little: never stop early
    successor.curve += fit(
        mixed,
        successor,
        dataset,
        replacing,
        seed=seed,
        stage="replace",
        num_steps=num_replacing,
        callbacks=[ReplacingRate(mixes, schedules[schedule])],
    )
    successor.history.append(
        {
            "method": "theseus",
            "seed": seed,
            "training": training.settings(),
            "module_map": module_map,
            "schedule": schedule,
            "rate": rate,
            "full_at": full_at,
            "start": start,
            "gate": gate,
            "granularity": granularity,
            "embeddings": embeddings,
            "train_head_last": train_head_last,
            "finetune_share": finetune_share,
        }
    )
    if not num_finetune:
        return successor.clone()  # off the mixed model, and trainable again
    return finetune(
        successor,
        dataset,
        seed=seed,
        training=training,
        num_steps=num_finetune,
        first_step=num_replacing,
        only=None if train_head_last else "layer_",
    )
