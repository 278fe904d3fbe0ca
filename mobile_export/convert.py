"""A `TaskModel` as .tflite files that run on phones, and as .onnx, each checked against Keras before it is written.

The graph: three int32 inputs (1, seq) by name, one signature, built-in operators only, one output `probabilities`
((1, classes), tagging (1, seq, labels)). The softmax is in the graph because a client such as MediaPipe's
TextClassifier shows the single output tensor as it is. Parity is still checked on logits, and on the very same file:
in a copy of its bytes the output's index is set to the tensor that the softmax reads (`logits_view`).
"""

import gzip
import time
from pathlib import Path

import numpy as np
from tensorflow.lite.python.convert_phase import (
    ConverterError,
)  # no public name; after backend, which picks Keras 2

from keras_compress.backend import keras, tf
from keras_compress.bert.encoder import LayerStore, build, can_be_cls_only
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import Encoding
from keras_compress.files import atomic_write
from keras_compress.measure.accuracy import evaluate, paired_difference
from mobile_export import ort
from mobile_export.litert import OUTPUT_NAME, Runner
from mobile_export.low_bits import low_bits
from mobile_export.metadata import no_metadata, with_metadata

ONNX = "onnx_"  # begins the names of formats for ONNX Runtime
ONNX_FORMATS = ("onnx_float32", "onnx_int8")
FORMATS = ("float32", "float16", "int8", "int8_per_tensor", "int4", "int2", *ONNX_FORMATS)
LOW_BITS = {"int4": 4, "int2": 2}
MAX_LOGIT_DIFFERENCE = {
    "float32": 1e-4,
    "float16": 1e-2,
    "onnx_float32": 1e-4,
}  # of the largest, if above 1
MAX_MEAN_DP = 0.05
MAX_FALL = 0.02  # of dev accuracy, beyond the paired 95 % interval
NUM_PARITY_TEXTS = 200  # int8 is checked on all dev texts


class ExportError(ValueError):
    """The file would not do what the Keras model does; nothing was written."""


def export(
    task_model,
    path,
    formats=("float32", "int8"),
    *,
    sequence_length=64,
    dev=None,
    cls_only=None,
    fuse=False,
    allow_drift=False,
):
    """Converts a model, compares each file with Keras, and writes all of them or none.

    A classifier's files hold vocabulary, labels and the figures of the comparison (metadata.py); MediaPipe's
    TextClassifier runs them as they are. Those of other models hold the graph alone, and `no_metadata` says why.

    Args:
        task_model: `TaskModel` of a task with labels.
        path: a folder, for `file_name(format)`; or, for one format, a name that ends as its file's. Replaced if there.
        formats: some of "float32", "float16", "int8" (dynamic range: int8 weights, one scale per channel),
            "int8_per_tensor" (the same with one scale per weight, for runtimes up to 2.14), "int4" and "int2" (weights
            of so many bits, see low_bits.py), "onnx_float32" and "onnx_int8" (.onnx files of the same graph, see
            to_onnx.py; they need packages of their own). A model with static quantisation (quantization/q8bert.py)
            gives "int8" files alone, whose activations are int8, too.
        sequence_length: fixed length of the inputs; longer texts must be cut.
        dev: `Split` to compare on, with labels; None: random ids of varied lengths, and no accuracy.
        cls_only: compute the last layer for [CLS] alone (exact). None: where task and pooling allow.
        fuse: let the converter fold LayerNorm's gamma into the next weights, which then leave the trained grid.
        allow_drift: write int8 files that drift too far, marked in `drift`.
    Returns:
        list of dicts, one per file: `format`, `path`, `bytes`, `gzip_bytes` (compressed, as for a download: zeros and
        repeated weights show here, and neither in `bytes` nor in the time), `no_metadata` (None, or why there is
        none), `sequence_length`, `cls_only`, `partitions` (XNNPACK; None for ONNX), `seconds` (conversion), and
        against Keras on the same texts cut to the same length: `num_examples`, `compared_on` (the same in words),
        `agreement` (0-1; tagging: of tokens),
        `max_dp`, `mean_dp` (over texts or tokens, of the largest probability difference), `max_dlogit` (floats only),
        `metric`, `accuracy`, `accuracy_keras` (int8 with dev only), `drift` (None, or what is out of bounds).
    Raises:
        ValueError: on wrong arguments. ImportError: if packages for ONNX are missing.
        ExportError: on an operator that is not built in; a non-finite output; logits off by more than 1e-4 (float32)
            or 1e-2 (float16) of the largest (of 1, if all are smaller); int8 mean |dp| above .05, or accuracy more
            than 2 points below Keras even at the near end of the paired 95 % interval.
    """
    config, path = task_model.config, Path(path)
    if task_model.task == "mlm":
        raise ValueError(
            "A model to export must have a task with labels. Received: a masked-LM model. Fine-tune it "
            "first."
        )
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ValueError(
            f"`formats` must be some of {', '.join(FORMATS)}. Received: {', '.join(unknown) or 'none'}."
        )
    is_file = path.suffix in (".tflite", ".onnx")
    if is_file and (len(formats) > 1 or path.suffix != Path(file_name(formats[0])).suffix):
        raise ValueError(
            f"`path` must be a folder for several formats, and for one a folder or a name that ends in "
            f"{Path(file_name(formats[0])).suffix}. Received: `{path}`."
        )
    if config.quantization and not all(name.startswith("int8") for name in formats):
        raise ValueError(
            "A model that quantises its activations can be exported as int8 and int8_per_tensor alone. "
            f"Received: {', '.join(formats)}. Export the model that it was trained from."
        )
    if not 4 <= sequence_length <= config.max_position_embeddings:
        raise ValueError(
            f"`sequence_length` must be 4 to {config.max_position_embeddings}, the positions that the "
            f"model has. Received: {sequence_length}."
        )
    if {*formats} & {*ONNX_FORMATS}:
        ort.require(*ort.PACKAGES)
    if cls_only is None:
        cls_only = can_be_cls_only(config, task_model.task)
    found = []
    for name in dict.fromkeys(formats):
        start = time.perf_counter()
        content = convert(task_model, name, sequence_length, cls_only, fuse)
        facts = {
            "format": name,
            "path": str(path if is_file else path / file_name(name)),
            "no_metadata": "ONNX has none" if name in ONNX_FORMATS else no_metadata(task_model),
            "sequence_length": sequence_length,
            "cls_only": cls_only,
            "seconds": round(time.perf_counter() - start, 1),
        }
        facts |= compare(task_model, content, name, dev)
        if facts["drift"] and not allow_drift:
            raise ExportError(
                f"{name}: {facts['drift']}. Nothing was written. Pass `allow_drift` to write it anyway."
            )
        if facts["no_metadata"] is None:
            content = with_metadata(
                content, task_model, f"{name}, {sequence_length} pieces; {parity(facts)}"
            )
        found.append(
            (facts | {"bytes": len(content), "gzip_bytes": len(gzip.compress(content))}, content)
        )
    for facts, content in found:
        with atomic_write(facts["path"], "wb") as file:
            file.write(content)
    return [facts for facts, _ in found]


def file_name(name):
    """ "int8.tflite" for the format "int8", "int8.onnx" for "onnx_int8"."""
    return name.removeprefix(ONNX) + (".onnx" if name in ONNX_FORMATS else ".tflite")


def exported_graph(task_model, sequence_length, cls_only=False):
    """What is exported, with the model's own weights: inputs of fixed shape by name -> probabilities.

    Returns:
        (`keras.Model` that gives logits, concrete TensorFlow function that gives {"probabilities": tensor}).
    """
    store = LayerStore(task_model.config, existing=task_model.model.layers)
    inputs, outputs = build(
        task_model.config,
        task_model.task,
        len(task_model.labels),
        store,
        sequence_length,
        1,
        cls_only,
    )
    model = keras.Model(
        inputs, outputs["logits"], name=task_model.config.architecture
    )  # part of every tensor's name
    serve = tf.function(
        lambda **ids: {OUTPUT_NAME: tf.nn.softmax(model(ids, training=False))}, autograph=False
    )
    specs = {key: tf.TensorSpec(tensor.shape, tf.int32, name=key) for key, tensor in inputs.items()}
    return model, serve.get_concrete_function(**specs)


def convert(task_model, name, sequence_length, cls_only=False, fuse=False):
    """The bytes of one file; arguments as in `export`. One converter object converts once."""
    if name in LOW_BITS:
        return low_bits(
            convert(task_model, "float32", sequence_length, cls_only, fuse), LOW_BITS[name]
        )
    if name in ONNX_FORMATS:
        from mobile_export.to_onnx import quantize, to_onnx

        content = to_onnx(task_model, sequence_length, cls_only)
        return quantize(content) if name == "onnx_int8" else content
    model, function = exported_graph(task_model, sequence_length, cls_only)
    module = (
        tf.Module()
    )  # holds the bare variables: saving the Keras model takes several times as long
    module.weights = model.variables
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS
    ]  # neither Flex nor custom operators
    converter._experimental_disable_fuse_mul_and_fc = not fuse
    if name != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if name == "float16":
        converter.target_spec.supported_types = [tf.float16]
    converter._experimental_disable_per_channel = name == "int8_per_tensor"
    try:
        return converter.convert()
    except ConverterError as error:
        lines = str(
            error
        ).splitlines()  # pages of graph; the one line that counts names the operators
        named = [line for line in lines if line.startswith(("Custom ops:", "Flex ops:"))] or lines[
            :1
        ]
        raise ExportError(
            f"{name}: the graph must convert to TFLite's built-in operators alone. Received: {named[0]}."
        ) from error


def compare(task_model, content, name, dev=None):
    """Runs a converted model and Keras on the same inputs.

    Args:
        content: bytes of the file. name: its format. dev: as in `export`.
    Returns:
        dict: those facts of `export` that come from running; `drift` says what is out of bounds for int8.
    Raises:
        ExportError: on what `allow_drift` does not allow.
    """
    open_content, view = (
        (ort.OnnxRunner, ort.logits_view) if name in ONNX_FORMATS else (Runner, logits_view)
    )
    runner, is_float = open_content(content), name in MAX_LOGIT_DIFFERENCE
    encodings = parity_encodings(task_model, runner.sequence_length, dev)[
        : NUM_PARITY_TEXTS if is_float else None
    ]
    logits = _cut(task_model.forward(encodings), encodings)
    rows = runner.forward(encodings)
    theirs, ours = np.vstack(rows), np.vstack(logits)  # (texts or tokens, classes)
    for who, values in (("Keras", ours), ("The converted model", theirs)):
        if not np.isfinite(values).all():
            raise ExportError(
                f"{name}: outputs must be finite. Received: {who} gives "
                f"{np.sum(~np.isfinite(values).all(-1))} of {len(values)} rows with inf or nan."
            )
    dp = np.abs(tf.nn.softmax(ours).numpy() - theirs).max(-1)
    kind = (
        "the tokens of " * (task_model.task == "tagging")
        + f"{len(encodings)} {'random inputs' if dev is None else 'dev texts'}"
    )
    facts = {
        "partitions": runner.num_partitions,
        "num_examples": len(encodings),
        "compared_on": kind,
        "agreement": float(np.mean(theirs.argmax(-1) == ours.argmax(-1))),
        "max_dp": float(dp.max()),
        "mean_dp": float(dp.mean()),
        "max_dlogit": None,
        "metric": None,
        "accuracy": None,
        "accuracy_keras": None,
        "drift": None,
    }
    if is_float:
        facts["max_dlogit"] = float(
            np.abs(np.vstack(open_content(view(content)).forward(encodings)) - ours).max()
        )
        largest = max(1.0, float(np.abs(ours).max()))  # rounding errors grow with the values
        if not facts["max_dlogit"] <= MAX_LOGIT_DIFFERENCE[name] * largest:
            raise ExportError(
                f"{name}: logits must be within {MAX_LOGIT_DIFFERENCE[name]:g} of Keras', as a share of "
                f"the largest, {largest:.3g}. Received: {facts['max_dlogit']:.3g} apart on "
                f"{len(encodings)} texts."
            )
        return facts
    if facts["mean_dp"] > MAX_MEAN_DP:
        facts["drift"] = (
            f"mean |dp| must be at most {MAX_MEAN_DP}. Received: {facts['mean_dp']:.3f}"
        )
    if dev is not None and dev.labels is not None:
        before, after = (
            evaluate(AtLength(task_model, runner.sequence_length, lambda *_: values), dev)
            for values in (logits, _log(rows))
        )
        change = paired_difference(after["metric"], after["scores"], before["scores"])
        facts |= {
            "metric": after["metric"],
            "accuracy": after["value"],
            "accuracy_keras": before["value"],
        }
        if change["high"] < -MAX_FALL:
            facts["drift"] = (
                f"dev {after['metric']} must not fall by more than {MAX_FALL} beyond its 95 % interval. "
                f"Received: {before['value']:.3f} -> {after['value']:.3f}, interval of the difference "
                f"{change['low']:.3f} to {change['high']:.3f}"
            )
    return facts


def parity(facts):
    """The figures of `compare` as text."""
    accuracy = (
        ""
        if facts["accuracy"] is None
        else (
            f", {facts['metric']} {100 * facts['accuracy']:.1f} % (Keras "
            f"{100 * facts['accuracy_keras']:.1f} %)"
        )
    )
    drift = f"; DRIFT: {facts['drift']}" if facts["drift"] else ""
    return (
        f"agrees with Keras on {100 * facts['agreement']:.1f} % of {facts['compared_on']}, largest |dp| "
        f"{facts['max_dp']:.2g}{accuracy}{drift}"
    )


def reasons_without_metadata(files):
    """Why .tflite files among some that were exported hold no metadata: different sentences."""
    return list(
        dict.fromkeys(
            file["no_metadata"]
            for file in files
            if file["no_metadata"] and file["format"] not in ONNX_FORMATS
        )
    )


class AtLength:
    """What `evaluate` needs of a model: texts cut at `sequence_length` pieces; `forward` gives the logits."""

    def __init__(self, task_model, sequence_length, forward):
        self.config = task_model.config.replace(max_position_embeddings=sequence_length)
        self.tokenizer, self.task, self.labels = (
            task_model.tokenizer,
            task_model.task,
            task_model.labels,
        )
        self.forward = forward

    predict = TaskModel.predict  # text to labels exactly as Keras does it, but for the forward pass


def exported_model(path, task_model, num_threads=1):
    """An exported file as an object with `predict(texts)`, `task` and `labels`, to be measured like a `TaskModel`.

    Args:
        task_model: the one it was exported from (its tokenizer and labels are used).
    """
    runner = ort.open_model(path, num_threads)
    check_exported_from(task_model, runner, path)
    return AtLength(
        task_model, runner.sequence_length, lambda encodings, _: _log(runner.forward(encodings))
    )


def check_exported_from(task_model, runner, path):
    """Raises ValueError unless a file has this model's outputs and as many word pieces."""
    shape = (runner.sequence_length,) * (task_model.task == "tagging") + (len(task_model.labels),)
    if (runner.output_shape, runner.vocab_size) != (shape, task_model.config.vocab_size):
        raise ValueError(
            f"{path}: must be exported from this model, with outputs of shape {shape} and "
            f"{task_model.config.vocab_size} pieces. Received: {runner.output_shape} and "
            f"{runner.vocab_size}."
        )


def parity_encodings(task_model, sequence_length, dev=None):
    """Encoded dev texts; without any, random ids of varied lengths, seeded."""
    if dev is not None:
        encode = (
            task_model.tokenizer.encode_words
            if task_model.task == "tagging"
            else task_model.tokenizer.encode
        )
        return encode(list(dev.texts), sequence_length)
    random, config = np.random.default_rng(0), task_model.config
    lengths = random.integers(1, sequence_length + 1, NUM_PARITY_TEXTS // 2)
    return [
        Encoding(
            random.integers(0, config.vocab_size, n).tolist(),
            np.sort(random.integers(0, min(config.type_vocab_size, 2) or 1, n)).tolist(),
        )
        for n in lengths
    ]


def logits_view(content):
    """A copy of a file's bytes that gives the logits under the name of the probabilities: same graph, same weights."""
    from ai_edge_litert.schema_py_generated import Model

    content = bytearray(content)
    model = Model.GetRootAsModel(content)
    graph, signature = model.Subgraphs(0), model.SignatureDefs(0).Outputs(0)
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    softmax = next(operator for operator in operators if operator.Outputs(0) == graph.Outputs(0))
    graph.OutputsAsNumpy()[0] = softmax.Inputs(0)
    place = signature._tab.Pos + signature._tab.Offset(6)  # field TensorMap.tensor_index
    content[place : place + 4] = int(softmax.Inputs(0)).to_bytes(4, "little")
    return content


def _cut(rows, encodings):
    """Leaves out what stands at padded places: (seq, labels) -> (number of ids, labels)."""
    return [
        row if row.ndim == 1 else row[: len(encoding.ids)] for row, encoding in zip(rows, encodings)
    ]


def _log(rows):
    return [np.log(np.maximum(row, np.finfo(np.float32).tiny)) for row in rows]
