"""LayerDrop: layers left out at random in training, so that one model can be cut to any depth. Fan et al., 2019, arXiv:1909.11556.

Equation map
    Sec. 3.2   a layer runs if u > p, u ~ U[0, 1], else x_{l+1} = x_l; no rescaling    LayerDrop.call
    Sec. 3.2   every other: layer d goes if d = 0 mod floor(1 / p*), p* the share      layerdrop_depth
               that goes
    Sec. 3.2   p = 1 - r for a model that will keep a share r of its layers            rate
Every batch meets another depth; in evaluation all layers run.
    layerdrop         fine-tunes with it       layerdrop_mlm    trains a masked-LM model with it
    layerdrop_depth   cuts the trained model, without training: every depth from one model
Departures
    floor(1 / p*) counts right only where 1 / p* is whole, and is 1 above a half: here the layers that stay are
    always evenly spaced (`select_layers`, "alternate"), which is the paper's choice wherever that has so many.
    A layer left out has a gradient of zero, not none: AdamW moves it by momentum and decay.
    Other dropout stays as it is; the authors lower it by .1.
The authors warn (fairseq, FAQ of the examples) that fine-tuning alone makes no model prunable: pre-train with it, too.
"""

from typing import Literal

from keras_compress.backend import keras, tf
from keras_compress.bert.checkpoints import with_head
from keras_compress.bert.encoder import LayerStore, embed, task_head, transformer_layer
from keras_compress.bert.layer_maps import HOW, select_layers
from keras_compress.bert.layers import AttentionBias
from keras_compress.method import BelowOne, Count, compression, note
from keras_compress.pretraining import masked_lm as mlm
from keras_compress.training.finetune import tune
from keras_compress.training.loop import fit
from keras_compress.training.optimizer import adamw
from keras_compress.training.settings import Training


class LayerDrop(keras.layers.Layer):
    """Runs a layer, or in training, with chance `rate`, passes its input on. It is never saved.

    The draw is a stateless function of seed, update and layer, so that replicas and resumed runs draw alike.

    Args:
        layer: `keras.Model`, [hidden states (batch, seq, hidden), bias] -> hidden states.
        index: number of the layer. rate: p, chance that it is left out.
    Weights:
        step: number of the update.
    """

    def __init__(self, layer, index, rate, seed):
        super().__init__(name=f"layerdrop_{index}")
        self.layer, self.rate, self.seed = layer, rate, seed * 1000 + index
        once = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.step = self.add_weight("step", (), "int64", "zeros", trainable=False, aggregation=once)

    def call(self, inputs, training=None):  # (batch, seq, hidden), (batch, 1, 1, seq)
        if not training:
            return self.layer(inputs, training=False)
        u = tf.random.stateless_uniform((), seed=tf.stack([self.seed, self.step]))
        self.step.assign_add(1)
        # Sec. 3.2: the layer runs if u > p
        return tf.cond(u > self.rate, lambda: self.layer(inputs, training=True), lambda: inputs[0])


def dropping_encoder(task_model, rate, seed):
    """The last hidden states, (batch, seq, hidden), of a model whose layers are left out at random with chance `rate`.

    They are symbolic, a function of `task_model.model.input`.
    """
    get, inputs = (
        LayerStore(task_model.config, existing=task_model.model.layers),
        task_model.model.input,
    )
    bias = AttentionBias(name="attention_bias")(inputs["input_mask"])
    x = embed(get, inputs["input_word_ids"], inputs["input_type_ids"])
    for index in range(get.config.num_layers):
        ends = keras.Input((None, get.config.hidden_size)), keras.Input((1, 1, None))
        layer = keras.Model(ends, transformer_layer(get, index, *ends)[0])
        x = LayerDrop(layer, index, rate, seed)([x, bias])
    return x


@compression(trained_head=False, bert=True)
def compress(task_model, dataset, *, seed=0, training=Training(), rate: BelowOne = 0.2):
    """Fine-tunes a model while its layers are left out at random; `layerdrop_depth` cuts the result.

    Args:
        rate: p, chance that a layer is left out: .1 to .2, up to .5 if half of the layers will go.
    Returns:
        `TaskModel` of all layers.
    """
    small = task_model.clone(seed=seed)
    get, inputs = LayerStore(small.config, existing=small.model.layers), small.model.input
    last = dropping_encoder(small, rate, seed), inputs["input_mask"]
    model = keras.Model(inputs, task_head(get, small.task, len(small.labels), *last)[1])
    return tune(small, dataset, seed=seed, training=training, model=model, stage="layerdrop")


@compression(data="any", trained_head=False, bert=True)
def layerdrop_mlm(task_model, dataset, *, seed=0, training=Training(), rate: BelowOne = 0.2):
    """LayerDrop in masked-LM training: what makes a model prunable.

    Args:
        task_model: `TaskModel`; one of another task gets a new masked-LM head.
        dataset: labels are not looked at. rate: see `layerdrop`.
    Returns:
        `TaskModel` of task "mlm" with all layers.
    """
    small = with_head(task_model, "mlm", (), seed=seed)
    chosen = mlm.choosing_model(small, dropping_encoder(small, rate, seed))
    model = keras.Model(chosen.input, chosen.output["logits"])
    num_steps = training.num_steps(len(dataset.train.texts))
    model.compile(adamw(training, num_steps), mlm.masked_loss, jit_compile=False)
    small.curve += fit(
        model,
        small,
        dataset,
        training,
        seed=seed,
        stage="layerdrop",
        batches=mlm.masked_stream(dataset, small.tokenizer, training, seed),
        measure=lambda: mlm.masked_accuracy(small, dataset, training),
    )
    return small


@compression(data="any", trained_head=False, bert=True, trains=False)
def layerdrop_depth(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers: Count = 3,
    how: Literal[HOW] | list[int] = "alternate",
):
    """LayerDrop's pruning: keeps some layers of a model that was trained with it, without training.

    Args:
        task_model: as from `layerdrop`. dataset: not looked at.
        num_layers: layers that stay. how: "alternate" is the paper's every other; see `select_layers`.
    Returns:
        `TaskModel` of `num_layers` layers.
    """
    kept = select_layers(task_model.config.num_layers, num_layers, how)
    note(kept=kept)
    return task_model.keep_layers(kept, seed=seed)
