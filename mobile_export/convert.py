"""A `TaskModel` as .tflite and .onnx files, each compared with Keras before it is written."""

import gzip
import logging
import os
import re
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from keras_compress.backend import tf
from keras_compress.bert.tasks import TASKS
from keras_compress.files import atomic_write
from mobile_export import ort
from mobile_export.flatbuffer import add_stamp, edited
from mobile_export.graph import ExportError, exported_graph
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
            What is there is replaced, by all new files together.
        formats: names of `FORMATS`.
        sequence_length: fixed length of the inputs, in pieces; longer texts must be cut.
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
    Raises:
        ValueError: on wrong arguments. ImportError: if packages for ONNX are missing.
        ExportError: at the end, if formats failed: on an operator that is not built in, a non-finite
            output, logits of floats that differ by more than their `tolerance`, or drift
            (`parity.MAX_MEAN_DP`, `MAX_FALL`). Its `files` are what was written, `failures` says why not.
    """
    path = Path(path)
    check_export(task_model, path, formats, sequence_length)
    if exits := task_model.config.exits:
        log.info("exits after layers %s are left out: the files compute all layers", exits)
    graph = exported_graph(task_model, sequence_length, cls_only)
    reference = Reference(task_model, sequence_length, dev, parity_texts)
    files, failures = [], {}
    with ExitStack() as together:  # all files take their places at the end, or none does
        for name in dict.fromkeys(formats):
            log.info("%s: converting", name)
            start = time.perf_counter()
            facts = {
                "format": name,
                "path": str(path if path.suffix in ENDINGS else path / file_name(name)),
                "no_metadata": "ONNX has none" if name in ONNX_FORMATS else no_metadata(task_model),
                "sequence_length": sequence_length,
                "cls_only": graph.cls_only,
            }
            if TASKS[task_model.task].answer == "sigmoid":
                facts["threshold"] = task_model.threshold
            try:
                content = FORMATS[name].write(graph, fuse)
                facts["seconds"] = round(time.perf_counter() - start, 1)
                log.info("%s: %s s; comparing with Keras", name, facts["seconds"])
                facts |= compare(reference, content, name, FORMATS[name].tolerance)
                if facts["drift"] and not allow_drift:
                    raise ExportError(f"{facts['drift']}. Pass `allow_drift` to write it anyway.")
            except ExportError as error:
                failures[name] = f"{name}: {str(error).removeprefix(f'{name}: ')}"
                log.info("%s: failed, not written", name)
                continue
            if facts["no_metadata"] is None:
                description = f"{name}, {sequence_length} pieces; {in_words(facts)}"
                content = with_metadata(content, task_model, description)
            file = together.enter_context(atomic_write(facts["path"], "wb"))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a full disk is told while the old files are there
            facts |= {"bytes": len(content), "gzip_bytes": len(gzip.compress(content))}
            files.append(facts)
            log.info("%s: %s", name, facts["path"])
        for facts in files:  # so that a kill leaves no old file beside a new one
            Path(facts["path"]).unlink(missing_ok=True)
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
    if not 4 <= sequence_length <= config.max_position_embeddings:
        raise ValueError(
            f"`sequence_length` must be 4 to {config.max_position_embeddings}, the positions that the "
            f"model has. Received: {sequence_length}."
        )
    if {*formats} & {*ONNX_FORMATS}:
        ort.require(*ort.PACKAGES)


def reasons_without_metadata(files):
    """Why .tflite files among the `export`ed hold no metadata: different sentences."""
    reasons = {facts["no_metadata"] for facts in files if facts["format"] not in ONNX_FORMATS}
    return [reason for reason in reasons if reason]
