"""What methods that set weights to zero share: the schedule of the zeros, and their count.

Equation map
    s(t) = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3    schedule, by TF-MOT's PolynomialDecay
Zhu & Gupta, 2017, arXiv:1710.01878, Eq. 1; Sanh et al., 2020, arXiv:2005.07683, Sec. 5, write it with 1 - s.
"""

import numpy as np
import tensorflow_model_optimization as tfmot

from keras_compress.bert.layers import is_inner_dense


def schedule(num_steps, sparsity, initial_sparsity=0.0, begin=0.0, end=0.75, frequency=50):
    """The polynomial schedule over a training run.

    Args:
        num_steps: updates of the run. sparsity, initial_sparsity: shares of zeros, s_f and s_i.
        begin, end: shares of the run, t_0 and t_1.
        frequency: updates between new masks; fewer in a short run.
    Raises:
        ValueError: if the zeros would become fewer, or the end comes before the beginning.
    """
    if initial_sparsity > sparsity or begin >= end:
        raise ValueError(
            "`initial_sparsity` must be at most `sparsity`, `begin` below `end`. Received: "
            f"{initial_sparsity}, {sparsity}, {begin} and {end}. Exchange them."
        )
    first, last = round(begin * num_steps), max(round(end * num_steps), 1)
    frequency = max(1, min(frequency, (last - first) // 10))
    # A mask is made only where frequency divides t - t_0: another t_1 would never bring the last mask.
    last = first + max(1, (last - first) // frequency) * frequency
    return tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity, sparsity, first, last, 3, frequency
    )


def zeros(task_model):
    """Share of zeros in the kernels of all Dense layers but the classifier, 0-1."""
    kernels = [layer.kernel for layer in task_model.model.layers if is_inner_dense(layer)]
    return 1.0 - sum(map(np.count_nonzero, kernels)) / sum(map(np.size, kernels))
