"""Q8BERT: quantisation-aware training (QAT) in 8, 4 and 2 bits. Zafrir et al., 2019, arXiv:1910.06188.

Training computes with rounded numbers, so that the weights settle where rounding does little harm.

Equation map (bert/fake_quant.py; the authors' code, NLP Architect, has the same formulas)
    Quantize(x | S, M) = clamp(round(x S), -M, M),  M = 2^(b-1) - 1          quantize
    weights       S = M / max|W|, anew at every update                       WeightQuantizer
    activations   S = M / EMA(max|x|)                                        ActivationQuantizer
    gradient      d Quantize / dx = 1 (straight-through)                     fake_quantize
Two routes, by `activations`
    "static"    the paper's: the model keeps quantising, and its int8 file computes as it does,
                integer by integer. Weights have 8 or 4 bits, activations 8.
    "dynamic"   only weights are quantised, with one scale per output. The result is a plain model
                whose weights lie on the grid (`bake`). Exported as "int8", "int4" or "int2" the file
                stores these very integers; the runtime quantises activations by each token's range.
Departures
    The EMA forgets faster: decay 0.99, where the authors' 0.9999 needs over 10^4 updates to forget
    its first value.
    Ranges are collected from the first update on, and activations quantised from `start_step` on.
    Weights are quantised always; in the authors' code they wait for `start_step`, too.
    Of the embeddings only the word table is quantised; the authors' code has position and type tables, too.
    What Dense layers read is quantised where it is made, at the outputs of LayerNorm and attention.
    So residual connections carry rounded values, too, and each tensor has one scale.
    Probabilities of attention are rounded to k / 256, as the converter's integer product does.
    Activations below their range become -128 where the paper has -127: TFLite's int8 has that value.
    With "static" the classifier stays float, and a stored integer may differ by 1 where a weight lies
    in the middle between two.
    The paper may leave a product in 32 bits; TFLite's int8 product gives int8. The ranges of the
    feed-forward outputs, wide because of a few outliers, are what "static" pays for (data/results).
    4 and 2 bits are this library's addition. With 2 bits the step max|w| makes zeros of all weights
    below max|w| / 2: 8.8 % of MiniLM's kernels stay nonzero, the relative squared error is 0.73.
    A ternary threshold of 0.7 mean|w| keeps 57 % at 0.21 in the same file: ternarybert.py.
Put it last in a chain: methods that change a model's shape expect weights that are free.
Training is a simulation, slower than without, and saved models are as large as before: only the
exported file is small.
"""

from typing import Literal

from keras_compress.backend import keras, tf
from keras_compress.bert.fake_quant import fake_quantize, has_row_scales, largest, table_bits
from keras_compress.method import BelowOne, Whole, compression
from keras_compress.training.finetune import tune
from keras_compress.training.settings import Training


def quantized(task_model, settings, *, seed=0):
    """The same model with fake quantisation inside; ranges of activations are still to be collected.

    Args:
        settings: `BertConfig.quantization`.
    Returns:
        `TaskModel`.
    """
    config, weights = task_model.config.replace(quantization=settings), task_model.weights()
    return task_model.rebuilt(config, weights, only=weights, seed=seed)


def bake(task_model, *, seed=0):
    """The plain model that computes what a "dynamic" model does: its weights are put on their grid.

    Returns:
        `TaskModel` without quantisation.
    """
    settings, weights = task_model.config.quantization, task_model.weights()
    for name, weight in weights.items():
        axis, bits = 0, settings["bits"]
        if name == "word_embeddings/embeddings":
            axis, bits = -1 if has_row_scales(settings) else None, table_bits(bits)
        elif not name.endswith("/kernel") or weight.ndim != 2:  # an adapter's groups stay float
            continue
        weights[name] = fake_quantize(tf.constant(weight), largest(weight, axis), bits).numpy()
    return task_model.rebuilt(task_model.config.replace(quantization=None), weights, seed=seed)


class CountUpdates(keras.callbacks.Callback):
    """Gives the quantisers the number of updates so far; TF-MOT's wrappers have it and leave it at -1."""

    def on_train_batch_begin(self, batch, logs=None):
        for layer in self.model.layers:
            if hasattr(layer, "optimizer_step"):
                layer.optimizer_step.assign(tf.cast(self.model.optimizer.iterations, tf.int32))


@compression(trained_head=False, bert=True)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    bits: Literal[8, 4, 2] = 8,
    activations: Literal["static", "dynamic"] = "static",
    decay: BelowOne = 0.99,
    start_step: Whole = 10,
):
    """Fine-tunes a model while it computes with quantised numbers.

    Args:
        task_model: usually fine-tuned.
        bits: of weights; 2 with "dynamic" alone. activations: see the two routes above.
        decay: d of the moving average. start_step: update from which on activations are quantised.
            Both are for "static" alone.
    Returns:
        `TaskModel`: "static", one that quantises while it computes; "dynamic", a plain model.
    """
    num_steps = training.num_steps(len(dataset.train.texts))
    config, static = task_model.config, activations == "static"
    if static and (bits == 2 or start_step >= num_steps):
        raise ValueError(
            f"`bits` must be 8 or 4 with static activations, `start_step` below {num_steps}, the number "
            f"of updates. Received: {bits} and {start_step}. Take dynamic, or train longer."
        )
    if static and config.adapter_shapes and config.adapter == "hgt":
        raise ValueError(
            "An adapter with groups cannot be exported with fixed ranges. Received: adapter 'hgt' and "
            "activations = 'static'. Use the method `fold` first, or take 'dynamic'."
        )
    settings = {"bits": bits, "activations": activations, "decay": decay, "start_step": start_step}
    tuned = quantized(task_model, settings, seed=seed)
    tune(tuned, dataset, seed=seed, training=training, stage="q8bert", callbacks=[CountUpdates()])
    return tuned if static else bake(tuned, seed=seed)
