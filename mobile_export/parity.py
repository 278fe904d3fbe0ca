"""Compares an exported file with Keras: probabilities, logits, accuracy, and the rules of drift.

Logits are compared on the very same weights and operators: a copy of the file gives the tensor that the
softmax reads, too (`logits_view`).
"""

import copy
import os
import time

import numpy as np
from ai_edge_litert.schema_py_generated import TensorMapT
from tqdm import tqdm

from keras_compress.bert.answers import answers_of, decided, logits_of
from keras_compress.bert.tasks import TASKS, encoding
from keras_compress.bert.tokenizer import Encoding
from keras_compress.measure.accuracy import agreement, evaluate, paired_difference
from mobile_export.flatbuffer import edited
from mobile_export.graph import ExportError
from mobile_export.litert import FILE_IDENTIFIER, OUTPUT_NAME, unpadded
from mobile_export.ort import open_model
from mobile_export.stamp import stamped

MAX_MEAN_DP = 0.05
MAX_FALL = 0.02  # of dev accuracy, beyond the paired 95 % interval
NUM_PARITY_TEXTS = 200  # float files; others are compared on all dev texts
MAX_SECONDS = 20  # of a file's passes; then they end
MIN_TEXTS = 50  # but not before these
LOGITS = "logits"


class Reference:
    """What all formats of a model are compared with: texts, and Keras' logits, computed once.

    Args:
        dev: as in `convert.export`. num_texts: how many to compare on; None: see NUM_PARITY_TEXTS.
    """

    def __init__(self, task_model, sequence_length, dev=None, num_texts=None):
        self.task_model, self.dev, self.num_texts = task_model, dev, num_texts
        self.sequence_length = sequence_length
        self.encodings, self._logits = _encodings(task_model, sequence_length, dev), []

    def logits(self, number):
        """Keras' logits of the first texts: list of float32, (classes,) or (number of ids, labels)."""
        more = self.encodings[len(self._logits) : number]
        self._logits += unpadded(self.task_model.forward(more), more)
        return self._logits[:number]


def compare(reference, content, name, tolerance=None):
    """Runs an exported file and Keras on the same inputs.

    Args:
        reference: `Reference`, whose length names the signature. content: bytes of the file. name: for messages.
        tolerance: largest difference of logits, as a share of the largest logit (of 1, if all are
            smaller), since rounding errors grow with the values. None: the rules of drift hold.
    Returns:
        dict: those facts of `convert.export` that come from running.
    Raises:
        ExportError: on what `allow_drift` does not allow.
    """
    task_model, dev, asked = reference.task_model, reference.dev, reference.num_texts
    is_number = TASKS[task_model.task].answer == "number"
    with_logits = tolerance and not is_number
    runner = open_model(logits_view(content) if with_logits else content, os.cpu_count())
    check_origin(task_model, runner, name)
    length = reference.sequence_length
    texts = reference.encodings[: asked or (NUM_PARITY_TEXTS if tolerance else None)]
    outputs = _outputs(runner, texts, name, None if asked else MAX_SECONDS, length)
    probabilities = outputs[OUTPUT_NAME]
    encodings = texts[: len(probabilities)]
    logits = reference.logits(len(encodings))
    in_keras, in_file = np.vstack(logits), np.vstack(probabilities)  # (texts or tokens, labels)
    largest, task = max(1.0, np.abs(in_keras).max()), task_model.task
    answers = answers_of(task, in_keras), in_file
    # A number's difference counts as a share of the largest number, as that of logits.
    dp = np.abs(answers[0] - in_file).max(-1) / (largest if is_number else 1)
    if not np.isfinite(dp).all():
        who = "The converted model" if np.isfinite(in_keras).all() else "Keras"
        raise ExportError(
            f"{name}: outputs must be finite. Received: {who} gives {np.sum(~np.isfinite(dp))} of "
            f"{len(dp)} rows with inf or nan."
        )
    early = f" of {len(texts)}" if len(encodings) < len(texts) else ""
    compared_on = f"{len(encodings)}{early} {'dev texts' if dev else 'random inputs'}"
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
        file_logits = in_file if is_number else np.vstack(outputs[LOGITS])
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
        dev = type(dev)(*(column[: len(encodings)] for column in dev))
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
    runner = open_model(path, os.cpu_count())
    check_origin(task_model, runner, path)

    def forward(encodings, _):
        outputs = _outputs(runner, encodings, str(path))[OUTPUT_NAME]
        return [logits_of(task_model.task, rows) for rows in outputs]

    return _at_length(task_model, runner.sequence_length, forward)


def _outputs(runner, encodings, name, max_seconds=None, length=None):
    """{name of an output: rows of the texts}; of fewer texts, at least MIN_TEXTS, if time runs out. `length` as in
    `Runner.inputs`."""
    start, found = time.thread_time(), {}  # what other programs take does not count
    for number, each in enumerate(tqdm(encodings, name, delay=5, leave=False, disable=None)):
        if max_seconds and number >= MIN_TEXTS and time.thread_time() - start > max_seconds:
            break
        for output, value in runner.outputs(runner.inputs(each, length)).items():
            found.setdefault(output, []).extend(unpadded(value, [each]))
    return found


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
    """A copy of a file with a second output (of each signature): the logits, which its softmax or sigmoid reads."""

    def show_logits(model):
        for signature in model.signatureDefs:
            graph = model.subgraphs[signature.subgraphIndex]
            last = next(row for row in graph.operators if row.outputs[0] == graph.outputs[0])
            graph.outputs = [*graph.outputs, *last.inputs]
            signature.outputs.append(TensorMapT(LOGITS.encode(), last.inputs[0]))

    if content[4:8] == FILE_IDENTIFIER:
        return edited(content, show_logits)
    import onnx

    model = onnx.load_from_string(content)
    last = next(
        node for node in reversed(model.graph.node) if node.op_type in ("Softmax", "Sigmoid")
    )
    model.graph.node.append(onnx.helper.make_node("Identity", last.input, [LOGITS]))
    model.graph.output.append(model.graph.output[0])  # of the same type and shape
    model.graph.output[-1].name = LOGITS
    return stamped(model.SerializeToString())
