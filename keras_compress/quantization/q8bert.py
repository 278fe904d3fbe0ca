"""Q8BERT: quantisation-aware training (QAT) in 8, 4 and 2 bits. Zafrir et al., 2019, arXiv:1910.06188.

Training computes with rounded numbers, so that the weights find a place where rounding does little harm.

Equation map (fake_quant.py; the authors' code, NLP Architect, has the same formulas)
    Quantize(x | S, M) = clamp(round(x S), -M, M),  M = 2^(b-1) - 1                          quantize
    weights       S = M / max|W|, anew at every update                                       WeightQuantizer
    activations   S = M / EMA(max|x|)                                                        ActivationQuantizer
    gradient      d Quantize / dx = 1 (straight-through)                                     fake_quantize
Two routes, by `activations`
    "static"    the paper's: the model keeps quantising, and its int8 file computes as it does, integer by integer.
                Weights have 8 or 4 bits, activations 8.
    "dynamic"   only weights are quantised, with one scale per output; the result is a plain model whose weights lie on
                the grid (`bake`). Exported as "int8", "int4" or "int2" the file stores these very integers, and the
                runtime quantises activations by the range that each token has. Weights have 8, 4 or 2 bits.
Departures
    The EMA forgets faster (the authors' 0.9999 needs over 10^4 updates to forget its first value). Ranges are collected
    from the first update on, and activations quantised from `start_step` on; weights are always.
    What Dense layers read is quantised where it is made, at the outputs of LayerNorm and attention, so that the
    residual connections carry rounded values, too, and each tensor has one scale. Probabilities of attention are
    rounded to k / 256, as the converter's integer product does. Activations below their range become -128 where the
    paper has -127: TFLite's int8 cannot leave it out. With "static" the classifier stays float, and a stored integer
    may be one off where a weight lies in the middle between two.
    The paper may leave a product in 32 bits; TFLite's int8 product gives int8. The ranges of the feed-forward outputs,
    wide because of a few outliers, are what "static" pays for (data/results/README.md).
Put it last in a chain: methods that change a model's shape expect weights that are free.
Training is a simulation, slower than without, and saved models are as large as before: only the exported file is small.
"""

from keras_compress.backend import keras, tf
from keras_compress.bert.fake_quant import fake_quantize, has_row_scales, largest, table_bits
from keras_compress.bert.layers import check_bert
from keras_compress.training.loop import Training, adamw, check_fit, fit, task_loss

BITS = {"static": (8, 4), "dynamic": (8, 4, 2)}


def quantized(task_model, settings, *, seed=0):
    """The same model with fake quantisation inside; ranges of activations are still to be collected.

    Args:
        settings: `BertConfig.quantization`.
    Returns:
        `TaskModel`.
    """
    weights = task_model.weights()
    return task_model.rebuilt(
        task_model.config.replace(quantization=settings), weights, only=weights, seed=seed
    )


def bake(task_model, *, seed=0):
    """The plain model that computes what a "dynamic" one does: its weights are put on their grid.

    Returns:
        `TaskModel` without quantisation.
    """
    settings, weights = task_model.config.quantization, task_model.weights()
    for name, weight in weights.items():
        axis, bits = 0, settings["bits"]
        if name == "word_embeddings/embeddings":
            axis, bits = -1 if has_row_scales(settings) else None, table_bits(bits)
        elif (
            not name.endswith("/kernel") or weight.ndim != 2
        ):  # an adapter's group products stay float
            continue
        weights[name] = fake_quantize(tf.constant(weight), largest(weight, axis), bits).numpy()
    return task_model.rebuilt(task_model.config.replace(quantization=None), weights, seed=seed)


class TellStep(keras.callbacks.Callback):
    """Tells the quantisers how many updates went before: TF-MOT's wrappers have a place for it and leave it at -1."""

    def on_train_batch_begin(self, batch, logs=None):
        for layer in self.model.layers:
            if hasattr(layer, "optimizer_step"):
                layer.optimizer_step.assign(tf.cast(self.model.optimizer.iterations, tf.int32))


def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    bits=8,
    activations="static",
    decay=0.99,
    start_step=10,
):
    """Fine-tunes a model while it computes with quantised numbers.

    Args:
        task_model: `TaskModel`, usually fine-tuned; left as it is.
        bits: of weights, 8, 4 or, with "dynamic", 2.
        activations: "static" or "dynamic" (see the two routes above).
        decay: d of the moving average. start_step: update from which on activations are quantised. Both are for
            "static" alone.
    Returns:
        `TaskModel`: "static", one that quantises while it computes; "dynamic", a plain one.
    Raises:
        ValueError: if model and data do not fit, or a setting is out of range.
    """
    check_fit(task_model, dataset)
    num_steps = training.num_steps(len(dataset.train.texts))
    if activations not in BITS or bits not in BITS[activations]:
        raise ValueError(
            "`activations` and `bits` must be static with 8 or 4, or dynamic with 8, 4 or 2. "
            f"Received: {activations!r} and {bits!r}."
        )
    if activations == "static" and not (0.0 <= decay < 1.0 and 0 <= start_step < num_steps):
        raise ValueError(
            f"`decay` must be in [0, 1), `start_step` 0 to {num_steps - 1}, before the last update. "
            f"Received: {decay} and {start_step}."
        )
    check_bert(task_model)
    if (
        activations == "static"
        and task_model.config.adapter_shapes
        and task_model.config.adapter == "hgt"
    ):
        raise ValueError(
            "An adapter with groups cannot be exported with fixed ranges. Received: adapter 'hgt' and "
            "activations = 'static'. Fold it first (`define` with folded=True), or take 'dynamic'."
        )
    settings = {"bits": bits, "activations": activations, "decay": decay, "start_step": start_step}
    with training.scope():
        tuned = quantized(task_model, settings, seed=seed)
        tuned.model.compile(adamw(training, num_steps), task_loss(tuned.task), jit_compile=False)
    tuned.history.append(
        {"method": "q8bert", "seed": seed, **settings, "training": training.settings()}
    )
    tuned.curve += fit(
        tuned.model, tuned, dataset, training, seed=seed, stage="q8bert", callbacks=[TellStep()]
    )
    return tuned if activations == "static" else bake(tuned, seed=seed)
