"""BinaryBERT: a ternary model is split into two binary ones, which train on. Bai et al., 2021, arXiv:2012.15701.

Training with two values from the start ends in a steep place. So three values are trained first; then every ternary
matrix becomes the sum of two binary ones that computes the same, and these train on.

Equation map (I: the weights above TWN's threshold, Z: the others, R: the sum of |w| over I)
    Eq. 4    B(w) = mean|w| sign(w), per matrix, per row of the word table      binarize (few_values.py)
    Sec. 3   w1 = a w, w2 = (1 - a) w on I                                      split_group
             w1 = w + b, w2 = -b on Z where w > 0; w1 = b, w2 = w - b elsewhere on Z
    Eq. 7    a = (R + Q - P) / 2R,  P, Q: sums of |w| over Z with w > 0, w < 0
    Eq. 8    b = (n alpha - sum |w|) / 2 |Z|
             so that w1 + w2 = w and B(w1) + B(w2) = ternarize(w)
    Sec. 4.1 two stages each: hidden states and attention scores, then answers  compress
Departures
    The paper writes a with sums over sets J and K; as above both scales are equal, with P and Q exchanged they are not.
    a must lie between 0 and 1. Where many small weights have one sign it does not; there the weights of Z take one of
    their two forms in turn, by size, which keeps |Q - P| below R. The paper has no such case.
    Z empty: a = 1/2, and no b. A group of zeros stays zero.
    The split model is as wide as the ternary one and has twice its matrices; the paper starts from a DynaBERT of half
    the width (prune first: `methods` lists how), so that it ends with as many bits.
    Both matrices share one bias, which is the sum of the paper's two.
    Activations and L_pred as in ternarybert.py; the authors' 4-bit activations (LSQ) and the adaptive splitting
    (Sec. 3.2) are left out. Their teacher runs with dropout; here it does not. They clip no ternary weights.
    The result is a plain model with the sums of the two matrices; "int2" stores both parts exactly (mobile_export).
    The authors train the ternary model at 1e-5, the binary one at 5e-5, inner stages at 2.5 times that, 2 epochs each.
"""

import numpy as np

from keras_compress.method import Positive, Share, compression, note
from keras_compress.quantization.few_values import (
    SECOND,
    THRESHOLD,
    FewValuesDense,
    FewValuesEmbedding,
    baked,
    clipped,
    quantized,
    teacher_losses,
)
from keras_compress.training.distill import distill
from keras_compress.training.settings import Training


def split_group(w):
    """Two latent weights of a group that has one alpha. float64 (...) -> (w1, w2), float64, the same shape.

    w1 + w2 = w, mean|w1| = mean|w2| = alpha / 2, and binarize(w1) + binarize(w2) = ternarize(w), up to the rounding
    of float64.
    """
    w = np.asarray(w, np.float64)
    magnitude, sign = np.abs(w), np.where(w > 0, 1.0, -1.0)
    on_I = magnitude > THRESHOLD * magnitude.mean()
    on_Z, R = ~on_I, magnitude[on_I].sum()
    num_Z, first = on_Z.sum(), w > 0  # first: whether, on Z, w1 carries w
    Q, P = (magnitude[on_Z & side].sum() for side in (~first, first))
    if abs(Q - P) >= R > 0:
        order = np.argsort(magnitude[on_Z])
        first[on_Z] = np.argsort(order) % 2 == 0  # by size, in turn
        Q, P = (magnitude[on_Z & side].sum() for side in (~first, first))
    # a = (R + Q - P) / 2R;  b = (n alpha - sum |w|) / 2 |Z|
    a, b = 0.5, 0.0
    if num_Z and R:
        a = (R + Q - P) / (2.0 * R)
        b = (w.size * R / on_I.sum() - magnitude.sum()) / (2.0 * num_Z)
    w1 = np.where(on_I, a * w, np.where(first, w + sign * b, -sign * b))
    return w1, w - w1


def split(model):
    """The weights of a ternary model, every matrix as two that sum up to it.

    Args:
        model: `TaskModel` of `quantized`.
    Returns:
        {"layer/variable": float array}, as a model of `quantized(.., "binary", split=True)` takes them.
    """
    weights = model.weights()
    for layer in model.model.layers:
        if isinstance(layer, FewValuesDense):
            name, groups = "kernel", split_group
        elif isinstance(layer, FewValuesEmbedding):
            name, groups = "embeddings", lambda w: np.stack([split_group(row) for row in w], 1)
        else:
            continue
        first, second = groups(clipped(weights[f"{layer.name}/{name}"], "ternary").numpy())
        weights |= {f"{layer.name}/{name}": first, f"{layer.name}/{SECOND}{name}": second}
    return weights


@compression(bert=True)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    ternary_share: Share = 0.5,
    inside_share: Share = 0.5,
    ternary_rate: Positive = 0.2,
    inside_rate: Positive = 2.5,
):
    """Distils a fine-tuned model into itself with weights that are sums of two binary ones.

    Args:
        task_model: the teacher, and where the student starts.
        ternary_share: share of the updates before the split. inside_share: share of the updates before and after it
            in which hidden states and attention are learned; the others are for the answers.
        ternary_rate, inside_rate: factors of the learning rate before the split, and in the inner stages.
    Returns:
        `TaskModel` of the same shape: at most four values per matrix and per row of the word table.
    """
    num_steps = training.num_steps(len(dataset.train.texts))
    losses = teacher_losses(task_model.config.num_layers)
    num_ternary = round(ternary_share * num_steps)
    note(num_ternary=num_ternary)

    def two_stages(student, kind, rate, num_steps, first_step, patience=None):
        """Hidden states and attention, then answers; a stage without updates is left out."""
        num_inside = round(inside_share * num_steps)
        inside = ("inside", num_inside, ("hidn", "attn"), inside_rate, None)
        answers = ("answers", num_steps - num_inside, ("pred",), 1.0, patience)
        for stage, count, terms, factor, patience in (inside, answers):
            settings = {"learning_rate": factor * rate, "patience": patience}
            if count:
                distill(
                    task_model,
                    student,
                    dataset,
                    {term: losses[term] for term in terms},
                    training=training.replace(**settings),
                    seed=seed,
                    stage=f"{kind}-{stage}",
                    num_steps=count,
                    first_step=first_step,
                )
            first_step += count

    rate, num_binary = training.learning_rate, num_steps - num_ternary
    ternary = quantized(task_model, task_model.weights(), "ternary", seed=seed)
    two_stages(ternary, "ternary", ternary_rate * rate, num_ternary, 0)
    binary = quantized(ternary, split(ternary), "binary", split=True, seed=seed)
    two_stages(binary, "binary", rate, num_binary, num_ternary, training.patience)
    return baked(binary, seed=seed)
