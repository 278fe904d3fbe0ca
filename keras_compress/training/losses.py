"""Losses between a teacher and a student.

Equation map
    Hinton et al., 2015, arXiv:1503.02531, Sec. 2   q = softmax(z / T)                   soften
    Hinton et al., 2015, Sec. 2                     soft term, scaled by T^2             soft_label_loss
    Tang et al., 2019, arXiv:1903.12136, Eq. 1      ||z^(T) - z^(S)||^2                  logits_mse
    Sanh et al., 2019, arXiv:1910.01108, Sec. 2     1 - cos(h_S, h_T)                    cosine_loss
    Jiao et al., 2020, arXiv:1909.10351, Sec. 3.1   MSE of attention scores              attention_loss
    Jiao et al., 2020, Sec. 3.1                     MSE of hidden states                 hidden_loss
Losses give one value per example or token; `masked_mean` averages over those that are no padding.

The labels tell how logits are read (`answer_of`; bert/tasks.py has the table). Whole numbers are places of one name
each: all is as above. Floats have the shape of the logits. With several columns they say of each name whether it holds:
softmax becomes sigmoid, and losses are means over the names. One column is a number: losses are squared errors, and the
temperature cancels, T^2 ((z_T - z_S) / T)^2 = (z_T - z_S)^2.
`soft_targets` and `true_labels` are two of them as losses of `distill`: (T, S, labels, mask) -> scalar.
"""

from keras_compress.backend import tf
from keras_compress.bert.layers import AttentionBias


def answer_of(labels, logits):
    """What logits give, "softmax", "sigmoid" or "number", as their labels tell."""
    if tf.as_dtype(labels.dtype).is_integer:
        return "softmax"
    return "number" if logits.shape[-1] == 1 else "sigmoid"


def counted(labels):
    """The mask of what has a label: those that are not -1; None, for all, where labels are no places of names."""
    return labels >= 0 if tf.as_dtype(labels.dtype).is_integer else None


def soften(logits, temperature):
    """Softmax at a temperature. (..., classes) -> the same."""
    return tf.nn.softmax(logits / temperature)


def soft_cross_entropy(teacher_logits, student_logits, temperature=1.0, answer="softmax"):
    """Cross-entropy between the softened answers in nats, of numbers the squared difference. (..., labels) twice -> (...)."""
    teacher, student = tf.stop_gradient(teacher_logits) / temperature, student_logits / temperature
    if answer == "number":
        return tf.reduce_mean(tf.square(student - teacher), axis=-1)
    if answer == "sigmoid":  # -q log p - (1 - q) log(1 - p) of each name
        values = tf.nn.sigmoid_cross_entropy_with_logits(tf.sigmoid(teacher), student)
        return tf.reduce_mean(values, axis=-1)
    return -tf.reduce_sum(tf.nn.softmax(teacher) * tf.nn.log_softmax(student), axis=-1)


def soft_label_loss(teacher_logits, student_logits, temperature=1.0, answer="softmax"):
    """KL divergence from teacher to student at one temperature, times T^2.

    Args:
        teacher_logits: float, (..., classes). Receives no gradient.
        student_logits: float, (..., classes).
        temperature: positive float T. answer: of `answer_of`.
    Returns:
        float, (...), in nats; of numbers their squared difference.
    """
    teacher_logits = tf.stop_gradient(teacher_logits)
    # T^2 KL(p || q) = T^2 H(p, q) - T^2 H(p)
    cross_entropy = soft_cross_entropy(teacher_logits, student_logits, temperature, answer)
    entropy = soft_cross_entropy(teacher_logits, teacher_logits, temperature, answer)
    return temperature**2 * cross_entropy - temperature**2 * entropy


def logits_mse(teacher_logits, student_logits, *_):
    """Mean squared difference of the logits, at any temperature and of any answer. (..., classes) twice -> (...)."""
    return tf.reduce_mean(tf.square(student_logits - tf.stop_gradient(teacher_logits)), axis=-1)


def label_loss(labels, logits):
    """Cross-entropy with the true labels in nats, mean over those that are not -1. (...), (..., classes) -> scalar.

    Of float labels, (batch, labels): the mean binary cross-entropy; of numbers the mean squared error.
    """
    answer = answer_of(labels, logits)
    if answer == "number":
        return masked_mean(tf.square(logits - labels))
    if answer == "sigmoid":
        return masked_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
    values = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
    return masked_mean(values, labels >= 0)


def cosine_loss(teacher, student):
    """1 - cosine of the angle between vectors. (..., hidden) twice -> (...), each in [0, 2]."""
    cosine = tf.math.l2_normalize(teacher, -1) * tf.math.l2_normalize(student, -1)
    return 1.0 - tf.reduce_sum(cosine, axis=-1)


def attention_loss(teacher, student, mask, reduction="masked", attention="scores"):
    """Mean squared difference of the attention.

    Args:
        teacher, student: scores, float (batch, heads, seq, seq), scaled by 1 / sqrt(head size), before mask
            and softmax.
        mask: int32 (batch, seq).
        reduction: "masked": over heads and pairs of real tokens; "reference": over everything, with
            what belongs to padded keys set to 0.
        attention: what is compared: "scores", or "probabilities", their softmax over real keys.
    Returns:
        float scalar.
    """
    if attention == "probabilities":
        bias = AttentionBias()(mask)  # (batch, 1, 1, seq)
        teacher, student = tf.nn.softmax(teacher + bias), tf.nn.softmax(student + bias)
    mask = tf.cast(mask, teacher.dtype)
    if reduction == "reference":
        return masked_mean(tf.square((student - teacher) * mask[:, None, None, :]))
    pairs = mask[:, None, :, None] * mask[:, None, None, :]  # (batch, 1, seq, seq)
    squares = tf.square(student - teacher)
    return masked_mean(squares, tf.broadcast_to(pairs, tf.shape(squares)))


def hidden_loss(teacher, student, mask, reduction="masked"):
    """Mean squared difference of hidden states, (batch, seq, hidden), over real tokens ("reference": over all)."""
    values = tf.reduce_mean(tf.square(student - teacher), axis=-1)  # (batch, seq)
    return masked_mean(values, mask if reduction == "masked" else None)


def masked_mean(values, mask=None):
    """Mean of the values where `mask` is not 0; 0 if there are none. (...) and None or (...) -> scalar.

    Devices average their values, so each divides its sum by the mean of all devices' counts.
    """
    mask = tf.ones_like(values) if mask is None else tf.cast(mask, values.dtype)
    count = tf.reduce_sum(mask)
    if not tf.distribute.in_cross_replica_context():  # false in the engine's symbolic run alone
        count = tf.distribute.get_replica_context().all_reduce("mean", count)
    return tf.math.divide_no_nan(tf.reduce_sum(tf.where(mask > 0, values, 0.0)), count)


def soft_targets(temperature, loss=soft_label_loss):
    """T^2 KL(softmax(z_T / T) || softmax(z_S / T)), mean over what has a label (not -1)."""

    def soft(T, S, labels, mask):
        answer = answer_of(labels, S["logits"])
        values = loss(T["logits"], S["logits"], temperature, answer)
        return masked_mean(values, counted(labels))

    return soft


def true_labels(T, S, labels, mask):
    """The student's `label_loss`."""
    return label_loss(labels, S["logits"])
