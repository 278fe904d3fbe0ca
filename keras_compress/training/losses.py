"""Losses between a teacher and a student.

Equation map
    Hinton et al., 2015, arXiv:1503.02531, Sec. 2   q = softmax(z / T)                   soften
    Hinton et al., 2015, Sec. 2                     soft term, scaled by T^2             soft_label_loss
    Tang et al., 2019, arXiv:1903.12136, Eq. 1      ||z^(T) - z^(S)||^2                  logits_mse
    Sanh et al., 2019, arXiv:1910.01108, Sec. 2     1 - cos(h_S, h_T)                    cosine_loss
Losses give one value per example or token; `masked_mean` averages over those that are no padding.
`soft_targets` and `true_labels` are two of them as losses of `distill`: (T, S, labels, mask) -> scalar.
"""

from keras_compress.backend import tf


def soften(logits, temperature):
    """Softmax at a temperature. (..., classes) -> the same."""
    return tf.nn.softmax(logits / temperature)


def soft_cross_entropy(teacher_logits, student_logits, temperature=1.0):
    """Cross-entropy between the softened answers in nats. (..., classes) twice -> (...)."""
    teacher = tf.stop_gradient(soften(teacher_logits, temperature))
    return -tf.reduce_sum(teacher * tf.nn.log_softmax(student_logits / temperature), axis=-1)


def soft_label_loss(teacher_logits, student_logits, temperature=1.0):
    """KL divergence from teacher to student at one temperature, times T^2.

    Args:
        teacher_logits: float, (..., classes). Receives no gradient.
        student_logits: float, (..., classes).
        temperature: positive float T.
    Returns:
        float, (...), in nats.
    """
    teacher_logits = tf.stop_gradient(teacher_logits)
    # T^2 KL(p || q) = T^2 H(p, q) - T^2 H(p)
    cross_entropy = soft_cross_entropy(teacher_logits, student_logits, temperature)
    entropy = soft_cross_entropy(teacher_logits, teacher_logits, temperature)
    return temperature**2 * cross_entropy - temperature**2 * entropy


def logits_mse(teacher_logits, student_logits):
    """Mean squared difference of the logits. (..., classes) twice -> (...)."""
    return tf.reduce_mean(tf.square(student_logits - tf.stop_gradient(teacher_logits)), axis=-1)


def label_loss(labels, logits):
    """Cross-entropy with the true labels in nats, mean over those that are not -1. (...), (..., classes) -> scalar."""
    values = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
    return masked_mean(values, labels >= 0)


def cosine_loss(teacher, student):
    """1 - cosine of the angle between vectors. (..., hidden) twice -> (...), each in [0, 2]."""
    cosine = tf.math.l2_normalize(teacher, -1) * tf.math.l2_normalize(student, -1)
    return 1.0 - tf.reduce_sum(cosine, axis=-1)


def masked_mean(values, mask=None):
    """Mean of the values where `mask` is not 0; 0 if there are none. (...) and None or (...) -> scalar.

    Devices average their values, so each divides its sum by the mean of all devices' counts.
    """
    mask = tf.ones_like(values) if mask is None else tf.cast(mask, values.dtype)
    count = tf.reduce_sum(mask)
    if not tf.distribute.in_cross_replica_context():  # false in the engine's symbolic run alone
        count = tf.distribute.get_replica_context().all_reduce("mean", count)
    return tf.math.divide_no_nan(tf.reduce_sum(tf.where(mask > 0, values, 0.0)), count)


def soft_targets(temperature):
    """T^2 KL(softmax(z_T / T) || softmax(z_S / T)), mean over what has a label (not -1)."""

    def soft(T, S, labels, mask):
        return masked_mean(soft_label_loss(T["logits"], S["logits"], temperature), labels >= 0)

    return soft


def true_labels(T, S, labels, mask):
    """Cross-entropy of the student's answers with the labels."""
    return label_loss(labels, S["logits"])
