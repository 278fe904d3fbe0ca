"""A `TaskModel` as .tflite and .onnx files, each compared with Keras before it is written."""

import gzip
import logging
import re
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_compress.backend import tf
from keras_compress.bert.tasks import TASKS
from keras_compress.files import atomic_write
from mobile_export import contract, ort
from mobile_export.benchmark import mean_time
from mobile_export.flatbuffer import add_stamp, edited, with_signatures
from mobile_export.graph import ExportError, exported_graph
from mobile_export.litert import signature_of
from mobile_export.low_bits import low_bits
from mobile_export.metadata import no_metadata, with_metadata
from mobile_export.parity import Reference, compare, exported_model, in_words  # noqa: F401
from mobile_export.to_onnx import to_onnx

log = logging.getLogger(__name__)


def to_tflite(graph, fuse=False, quantize=False, types=(), per_channel=True, bits=None):
    """The bytes of a .tflite file with built-in operators alone: neither Flex nor custom ones.

    Args:
        graph: `Graph`. fuse: as in `export`.
        quantize: weights as `types`; without types, in int8, with one scale per channel or weight.
        bits: 4 or 2, of weights, see low_bits.py.
    """
    from tensorflow.lite.python.convert_phase import ConverterError  # has no public name

    module = tf.Module()  # with bare variables: saving the Keras model takes several times as long
    module.weights = graph.model.variables
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph.function], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.target_spec.supported_types = list(types)
    converter.optimizations = [tf.lite.Optimize.DEFAULT] if quantize else []
    converter._experimental_use_buffer_offset = True  # or it copies the file several times
    converter._experimental_disable_per_channel = not per_channel
    converter._experimental_disable_fuse_mul_and_fc = not fuse
    try:
        content = converter.convert()
    except ConverterError as error:
        named = re.search("^(Custom|Flex) ops:.*", str(error), re.M)  # in pages of graph
        raise ExportError(
            "The graph must convert to TFLite's built-in operators alone. Received: "
            f"{named[0] if named else error}."
        ) from error
    content = edited(content, add_stamp)  # inlines the buffers, too
    return low_bits(content, bits) if bits else content


class Format(NamedTuple):
    """`write` turns (`Graph`, fuse) into the bytes of a file.

    A `tolerance` is that of float files, see `parity.compare`.
    """

    write: Any
    tolerance: float | None = None
    ending: str = ".tflite"


FORMATS = {
    "float32": Format(to_tflite, 1e-4),
    "float16": Format(partial(to_tflite, quantize=True, types=[tf.float16]), 1e-2),
    "int8": Format(partial(to_tflite, quantize=True)),
    "int8_per_tensor": Format(partial(to_tflite, quantize=True, per_channel=False)),
    "int4": Format(partial(to_tflite, bits=4)),
    "int2": Format(partial(to_tflite, bits=2)),
    "onnx_float32": Format(to_onnx, 1e-4, ".onnx"),
    "onnx_int8": Format(partial(to_onnx, int8=True), None, ".onnx"),
}
ONNX = "onnx_"  # begins the names of formats for ONNX Runtime
ONNX_FORMATS = tuple(name for name in FORMATS if name.startswith(ONNX))
ENDINGS = (".tflite", ".onnx")


def file_name(name):
    """ "int8.tflite" for the format "int8", "int8.onnx" for "onnx_int8"."""
    return name.removeprefix(ONNX) + FORMATS[name].ending


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
    parity_texts=None,
):
    """Converts a model, compares each file with Keras, and writes it if it passes. All formats are tried.

    A classifier's .tflite files hold vocabulary, labels and the figures of the comparison; MediaPipe's
    TextClassifier runs them as they are. README.md says when to use which format.

    Args:
        task_model: `TaskModel` of a task with labels. With static quantisation (q8bert.py) it gives
            "int8" and "int8_per_tensor" alone.
        path: a folder, for `file_name(format)`; for one format also a file's name with its ending.
            What is there is replaced: before the first new file takes its place, the old ones of all `formats` go.
        formats: names of `FORMATS`.
        sequence_length: fixed length of the inputs, in pieces; longer texts must be cut. Several: a .tflite file has a
            signature for each, on the same weights. MediaPipe takes no such file.
        dev: `Split` to compare on, with labels. None: random ids of varied lengths, no accuracy.
        cls_only: compute the last layer for [CLS] alone (exact). None: where task and pooling allow.
        fuse: let the converter fold LayerNorm's gamma into the next weights, which then leave the
            grid that they were trained on.
        allow_drift: write files that drift too far, marked in `drift`.
        parity_texts: how many of the first texts of `dev` are compared, however long it takes. None: 200
            for floats and all for others, fewer where a pass is slow (`parity.MAX_SECONDS`).
    Returns:
        list of dicts, one per file: `format`, `path`, `bytes`, `gzip_bytes` (as for a download: zeros
        and repeated weights show here alone), `no_metadata` (None, or why there is none),
        `sequence_length`, `cls_only`, `partitions` (of XNNPACK; None for ONNX), `seconds`; and against
        Keras on the same texts cut to the same length: `num_examples`, `compared_on` (in words),
        `agreement` (0-1; tagging: of tokens; multilabel: of names; regression: None), `max_dp`, `mean_dp` (over
        texts or tokens, of the largest probability difference; regression: as a share of the largest number), `max_dlogit` (floats only), `metric`, `accuracy`,
        `accuracy_keras` (others with dev only), `drift` (None, or what is out of bounds); for multilabel `threshold`.
        With several lengths `lengths`, {length: these figures}, and `mean_time` of `benchmark.mean_time` on dev.
    Raises:
        ValueError: on wrong arguments. ImportError: if packages for ONNX are missing.
        ExportError: at the end, if formats failed: on an operator that is not built in, a non-finite
            output, logits of floats that differ by more than their `tolerance`, or drift
            (`parity.MAX_MEAN_DP`, `MAX_FALL`). Its `files` are what was written, `failures` says why not.
    """
    path = Path(path)
    check_export(task_model, path, formats, sequence_length)
    contract.check_folder(path.parent if path.suffix in ENDINGS else path, task_model)
    if exits := task_model.config.exits:
        log.info("exits after layers %s are left out: the files compute all layers", exits)
    lengths = np.unique(sequence_length).tolist()
    graphs = {length: exported_graph(task_model, length, cls_only) for length in lengths}
    texts = {length: Reference(task_model, length, dev, parity_texts) for length in lengths}
    encodings = texts[lengths[-1]].encodings
    if cut := sum(each.truncated for each in encodings):
        form = "warning: %d of %d dev texts are longer than the %d pieces that the files read"
        log.warning(form, cut, len(encodings), lengths[-1])
    files, failures = [], {}
    for name in dict.fromkeys(formats):
        log.info("%s: converting", name)
        start = time.perf_counter()
        facts = {
            "format": name,
            "path": str(path if path.suffix in ENDINGS else path / file_name(name)),
            "no_metadata": no_metadata(task_model, len(lengths)),
            "sequence_length": lengths[-1],
            "cls_only": graphs[lengths[-1]].cls_only,
        }
        if name in ONNX_FORMATS:
            facts["no_metadata"] = "ONNX has none"
        if TASKS[task_model.task].answer == "sigmoid":
            facts["threshold"] = task_model.threshold
        try:
            write, tolerance, _ = FORMATS[name]
            *others, content = (write(graph, fuse) for graph in graphs.values())
            if others:
                content = with_signatures(content, dict(zip(map(signature_of, lengths), others)))
            facts["seconds"] = round(time.perf_counter() - start, 1)
            log.info("%s: %s s; comparing with Keras", name, facts["seconds"])
            compared = {n: compare(texts[n], content, name, tolerance) for n in lengths}
            facts |= compared[lengths[-1]]
            if others:
                encodings = dev and texts[lengths[-1]].encodings
                facts |= {"lengths": compared, "mean_time": mean_time(content, encodings)}
            drifts = [each["drift"] for each in compared.values() if each["drift"]]
            if drifts and not allow_drift:
                raise ExportError(f"{drifts[0]}. Pass `allow_drift` to write it anyway.")
        except ExportError as error:
            failures[name] = f"{name}: {str(error).removeprefix(f'{name}: ')}"
            log.info("%s: failed, not written", name)
            continue
        if name not in ONNX_FORMATS:
            description = f"{name}, {lengths[-1]} pieces; {in_words(facts)}"
            description = None if facts["no_metadata"] else description
            content = with_metadata(content, task_model, description)
        with atomic_write(facts["path"], "wb") as file:
            file.write(content)
            file.flush()  # a full disk is told while the old files are there
            if not files:  # a kill must not leave an old file beside a new one
                for old in (path / file_name(other) for other in set(formats) - {name}):
                    if old.is_file():
                        log.info("%s: removed, of the model before", old)
                        old.unlink()
        facts |= {"bytes": len(content), "gzip_bytes": len(gzip.compress(content))}
        contract.add_file(task_model, facts)
        files.append(facts)
        log.info("%s: %s", name, facts["path"])
    if failures:
        beside = f" Written: {', '.join(row['path'] for row in files)}." if files else ""
        raise ExportError(" ".join(failures.values()) + beside, files, failures)
    return files


def check_export(task_model, path, formats, sequence_length):
    """Refuses wrong arguments of `export`."""
    config = task_model.config
    if task_model.task == "mlm":
        raise ValueError(
            "A model to export must have a task with labels. Received: a masked-LM model. Fine-tune it "
            "first."
        )
    if not formats or not {*formats} <= {*FORMATS}:
        raise ValueError(
            f"`formats` must be some of {', '.join(FORMATS)}. Received: {', '.join(formats) or 'none'}."
        )
    ending = FORMATS[formats[0]].ending
    if path.suffix in ENDINGS and (len(formats) > 1 or path.suffix != ending):
        raise ValueError(
            "`path` must be a folder for several formats, and for one a folder or a name that ends in "
            f"{ending}. Received: `{path}`."
        )
    if config.quantization and not all(name.startswith("int8") for name in formats):
        raise ValueError(
            "A model that quantises its activations can be exported as int8 and int8_per_tensor alone. "
            f"Received: {', '.join(formats)}. Export the model that it was trained from."
        )
    lengths = np.unique(sequence_length).tolist()
    if not lengths or not 4 <= lengths[0] <= lengths[-1] <= config.max_position_embeddings:
        raise ValueError(
            f"`sequence_length` must be 4 to {config.max_position_embeddings}, the positions that the "
            f"model has. Received: {sequence_length}. Choose a length in between."
        )
    whole = config.architecture == "bilstm" or {*formats} & {*ONNX_FORMATS}
    if len(lengths) > 1 and whole:
        raise ValueError(
            "Files of several lengths must be .tflite files of a BERT: ONNX has one graph a file, and a BiLSTM loops. "
            f"Received: {', '.join(formats)} of a {config.architecture}. Export one length (`--length`)."
        )
    if {*formats} & {*ONNX_FORMATS}:
        ort.require(*ort.PACKAGES)


def formats_for(task_model, several_lengths=False):
    """All formats that a model and the packages that are installed allow; the log tells of the others."""
    config = task_model.config
    names = [name for name in FORMATS if name.startswith("int8") or not config.quantization]
    packages = all(map(find_spec, ort.PACKAGES))
    if several_lengths or config.architecture == "bilstm" or not packages:
        names = [name for name in names if name not in ONNX_FORMATS]
    others = ", ".join(name for name in FORMATS if name not in names)
    log.info("all formats: %s; not: %s", ", ".join(names), others or "none")
    return names


def reasons_without_metadata(files):
    """Why .tflite files among the `export`ed hold no metadata: different sentences."""
    reasons = {facts["no_metadata"] for facts in files if facts["format"] not in ONNX_FORMATS}
    return [reason for reason in reasons if reason]
