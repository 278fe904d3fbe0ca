"""TernaryBERT: weights of three values, learned from the float model. Zhang et al., 2020, arXiv:2009.12812.

A float copy of every matrix trains; the model computes with its ternary form (few_values.py). The file format "int2"
stores the three values exactly (codes -1, 0, 1 and a scale).

Equation map
    Sec. 3.1   weights: TWN, one alpha per matrix, per row of the word table             ternarize
               activations: 8 bits                                                       FewValuesDense
    Eq. 9      L_trm = sum over l = 0 .. L of MSE(H_l^S, H_l^T)                          teacher_losses (hidn)
                       + sum over l = 1 .. L of MSE(A_l^S, A_l^T), A: before softmax     teacher_losses (attn)
    Eq. 10     L_pred = SCE(P^S, P^T)                                                    teacher_losses (pred)
    Eq. 11     L = L_trm + L_pred, in one stage                                          compress
Departures
    8-bit activations are those that Dense layers read, symmetric, one scale per token: as LiteRT's kernels compute. The
    paper's have one range per tensor (of its minimum and maximum), and q, k, v and the probabilities are rounded, too.
    The result is a plain model whose weights have three values: as a float model it reads float activations, and the
    "int2" file 8-bit ones.
    Only TWN, the approximate of the paper's two quantisers; the exact one (loss-aware, LAT) is left out.
    An adapter of a narrow word table (ALBERT) is quantised, too, but for the groups of DeFINE's.
    Weights are clipped to -2.5 .. 2.5, with no gradient beyond, as in the authors' code.
    Means are over real tokens, theirs over padding, too. L_pred is a mean over texts, theirs also over classes.
    No data augmentation: see tinybert.
    The authors train with 2e-5 for 3 epochs.
Put it last in a chain: a later step that trains moves the weights off their three values.
"""

from keras_compress.method import compression
from keras_compress.quantization.few_values import baked, quantized, teacher_losses
from keras_compress.training.distill import distill
from keras_compress.training.settings import Training


@compression(bert=True)
def compress(task_model, dataset, *, seed=0, training=Training()):
    """Distils a fine-tuned model into itself with ternary weights.

    Args:
        task_model: the teacher, and where the student starts.
    Returns:
        `TaskModel` of the same shape: three values per matrix and per row of the word table.
    """
    student = quantized(task_model, task_model.weights(), "ternary", seed=seed)
    losses = teacher_losses(task_model.config.num_layers)  # L = L_trm + L_pred
    settings = {"training": training, "seed": seed, "stage": "ternarybert"}
    return baked(distill(task_model, student, dataset, losses, **settings), seed=seed)
