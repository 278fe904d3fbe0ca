"""Compares an exported file with Keras: probabilities, logits, accuracy, and the rules of drift.

Logits are compared on the very same weights and operators: in a copy of the file, the output is the
tensor that the softmax reads (`logits_view`).
"""

import copy

import numpy as np

from keras_compress.bert.answers import answers_of, decided, logits_of
from keras_compress.bert.tasks import TASKS, encoding
from keras_compress.bert.tokenizer import Encoding
from keras_compress.measure.accuracy import agreement, evaluate, paired_difference
from mobile_export.flatbuffer import edited
from mobile_export.graph import ExportError
from mobile_export.litert import FILE_IDENTIFIER, unpadded
from mobile_export.ort import open_model

MAX_MEAN_DP = 0.05
MAX_FALL = 0.02  # of dev accuracy, beyond the paired 95 % interval
NUM_PARITY_TEXTS = 200  # float files; others are compared on all dev texts


def compare(task_model, content, name, tolerance=None, dev=None):
    """Runs an exported file and Keras on the same inputs.

    Args:
        content: bytes of the file. name: for messages. dev: as in `convert.export`.
        tolerance: largest difference of logits, as a share of the largest logit (of 1, if all are
            smaller), since rounding errors grow with the values. None: the rules of drift hold.
    Returns:
        dict: those facts of `convert.export` that come from running.
    Raises:
        ExportError: on what `allow_drift` does not allow.
    """
    runner = open_model(content)
    check_origin(task_model, runner, name)
    length = runner.sequence_length
    encodings = _encodings(task_model, length, dev)[: NUM_PARITY_TEXTS if tolerance else None]
    logits = unpadded(task_model.forward(encodings), encodings)
    probabilities = runner.forward(encodings)
    in_keras, in_file = np.vstack(logits), np.vstack(probabilities)  # (texts or tokens, labels)
    largest, task = max(1.0, np.abs(in_keras).max()), task_model.task
    is_number = TASKS[task].answer == "number"
    answers = answers_of(task, in_keras), in_file
    # A number's difference counts as a share of the largest number, as that of logits.
    dp = np.abs(answers[0] - in_file).max(-1) / (largest if is_number else 1)
    if not np.isfinite(dp).all():
        who = "The converted model" if np.isfinite(in_keras).all() else "Keras"
        raise ExportError(
            f"{name}: outputs must be finite. Received: {who} gives {np.sum(~np.isfinite(dp))} of "
            f"{len(dp)} rows with inf or nan."
        )
    compared_on = f"{len(encodings)} {'dev texts' if dev else 'random inputs'}"
    if TASKS[task].per_token:
        compared_on = f"the tokens of {compared_on}"
    facts = {
        "partitions": runner.num_partitions,
        "num_examples": len(encodings),
        "compared_on": compared_on,
        "agreement": agreement(*(decided(task, rows, task_model.threshold) for rows in answers)),
        "max_dp": float(dp.max()),
        "mean_dp": float(dp.mean()),
        **dict.fromkeys(("max_dlogit", "metric", "accuracy", "accuracy_keras", "drift")),
    }
    if tolerance:
        file_logits = in_file
        if not is_number:
            file_logits = np.vstack(open_model(logits_view(content)).forward(encodings))
        facts["max_dlogit"] = float(np.abs(file_logits - in_keras).max())
        if not facts["max_dlogit"] <= tolerance * largest:
            raise ExportError(
                f"{name}: logits must be within {tolerance:g} of Keras', as a share of the largest, "
                f"{largest:.3g}. Received: {facts['max_dlogit']:.3g} apart on {len(encodings)} texts."
            )
        return facts
    if facts["mean_dp"] > MAX_MEAN_DP:
        facts["drift"] = (
            f"mean |dp| must be at most {MAX_MEAN_DP}. Received: {facts['mean_dp']:.3f}"
        )
    if dev:
        before = evaluate(_at_length(task_model, length, lambda *_: logits), dev)
        in_logits = [logits_of(task, rows) for rows in probabilities]
        after = evaluate(_at_length(task_model, length, lambda *_: in_logits), dev)
        metric, old, new = after["metric"], before["value"], after["value"]
        facts |= {"metric": metric, "accuracy": new, "accuracy_keras": old}
        change = paired_difference(metric, after["scores"], before["scores"])
        if change["high"] < -MAX_FALL:
            facts["drift"] = (
                f"dev {metric} must not fall by more than {MAX_FALL} beyond its 95 % interval. "
                f"Received: {old:.3f} -> {new:.3f}, interval of the difference {change['low']:.3f} to "
                f"{change['high']:.3f}"
            )
    return facts


def in_words(facts):
    """The figures of `compare` as text."""
    largest, on = f"{facts['max_dp']:.2g}", facts["compared_on"]
    if facts["agreement"] is None:
        words = f"differs from Keras by at most {largest} of the largest number, on {on}"
    else:
        agrees = 100 * facts["agreement"]
        words = f"agrees with Keras on {agrees:.1f} % of {on}, largest |dp| {largest}"
    if facts["accuracy"] is not None:
        accuracy, in_keras = 100 * facts["accuracy"], 100 * facts["accuracy_keras"]
        words += f", {facts['metric']} {accuracy:.1f} % (Keras {in_keras:.1f} %)"
    return words + (f"; DRIFT: {facts['drift']}" if facts["drift"] else "")


def exported_model(path, task_model):
    """An exported file as an object with `predict(texts)`, `task`, `labels`, to be measured.

    Args:
        task_model: the `TaskModel` that it was exported from. Its tokenizer and labels are used.
    """
    runner = open_model(path)
    check_origin(task_model, runner, path)

    def forward(texts, _):
        return [logits_of(task_model.task, rows) for rows in runner.forward(texts)]

    return _at_length(task_model, runner.sequence_length, forward)


def _at_length(task_model, sequence_length, forward):
    """A view of a model whose texts are cut at `sequence_length` and whose logits `forward` gives."""
    view = copy.copy(task_model)
    view.config = task_model.config.replace(max_position_embeddings=sequence_length)
    view.forward = forward  # what `predict` asks
    return view


def check_origin(task_model, runner, name):
    """Raises ValueError unless a file has this model's outputs and as many word pieces."""
    shape = (runner.sequence_length,) * TASKS[task_model.task].per_token
    shape += (len(task_model.labels),)
    num_pieces = len(task_model.tokenizer.vocab)
    if (runner.output_shape, runner.vocab_size) != (shape, num_pieces):
        raise ValueError(
            f"{name}: must be exported from this model, with outputs of shape {shape} and {num_pieces} "
            f"pieces. Received: {runner.output_shape} and {runner.vocab_size}."
        )


def _encodings(task_model, sequence_length, dev):
    """Encoded dev texts; without any, random ids of varied lengths, seeded."""
    if dev:
        return encoding(task_model.task, task_model.tokenizer)(dev.texts, sequence_length)
    random, config = np.random.default_rng(0), task_model.config
    num_types = min(config.type_vocab_size, 2) or 1
    return [
        Encoding(
            random.integers(0, config.vocab_size, length).tolist(),
            np.sort(random.integers(0, num_types, length)).tolist(),
        )
        for length in random.integers(1, sequence_length + 1, NUM_PARITY_TEXTS // 2)
    ]


def logits_view(content):
    """A copy of a file that gives the logits under the name of the probabilities, of which they are made."""

    def show_logits(model):
        graph = model.subgraphs[0]
        last = next(row for row in graph.operators if row.outputs[0] == graph.outputs[0])
        graph.outputs = last.inputs
        model.signatureDefs[0].outputs[0].tensorIndex = last.inputs[0]

    if content[4:8] == FILE_IDENTIFIER:
        return edited(content, show_logits)
    import onnx

    model = onnx.load_from_string(content)
    last = next(
        node for node in reversed(model.graph.node) if node.op_type in ("Softmax", "Sigmoid")
    )
    model.graph.output[0].name = last.input[0]
    return model.SerializeToString()
