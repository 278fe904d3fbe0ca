"""Runs an exported .tflite file by signature and by name.

The runtime is ai-edge-litert or, where only that is installed, tflite-runtime. TensorFlow is not needed,
so a small machine can run a file.
"""

import contextlib
import importlib
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from mobile_export.stamp import check_stamp

SIGNATURE = "serving_default"
INPUT_NAMES = ("input_word_ids", "input_mask", "input_type_ids")  # those of the encoder
OUTPUT_NAME = "probabilities"
FILE_IDENTIFIER = b"TFL3"  # bytes 4 to 7 of TFLite's flatbuffers
LOOKUPS = ("GATHER", "EMBEDDING_LOOKUP")
ONE_PIECE = SimpleNamespace(ids=[0], type_ids=[0])


def signature_of(length, longest=None):
    """The name of the signature of a length: the longest has the usual one."""
    return SIGNATURE if length == longest else f"length_{length}"


class Runner:
    """An exported model in memory.

    Attributes:
        lengths: of its inputs, one a signature; a text takes the shortest that it fits.
        sequence_length: the longest. output_shape: of that, (classes,) or (seq, labels).
        vocab_size: rows of the embedding matrix; an id beyond them would read foreign memory.
        op_names: list of str, the file's own operators.
        num_partitions: how many XNNPACK partitions it runs in (1: nothing falls back in between).

    Args:
        source: path of a .tflite file, or its bytes.
        num_threads: of XNNPACK.
    Raises:
        ValueError: if the file is damaged, or has other inputs than an exported model.
    """

    def __init__(self, source, num_threads=1):
        name, content = read(source)
        self._lock = threading.Lock()
        try:
            interpreter = _interpreter_class()(model_content=content, num_threads=num_threads)
            interpreter.allocate_tensors()
            operators = interpreter._get_ops_details()
            names = interpreter.get_signature_list()
            runs = [interpreter.get_signature_runner(each) for each in names]
            inputs = [run.get_input_details()["input_word_ids"] for run in runs]
            self._runs = {int(each["shape"][-1]): run for each, run in zip(inputs, runs)}
            self.lengths = sorted(self._runs)
            if not self.lengths:
                raise ValueError(
                    "it has no signature: TensorFlow leaves it out where the disk of temporary files is full"
                )
            self.sequence_length = self.lengths[-1]
            longest = interpreter.get_signature_runner(SIGNATURE)
            probabilities = longest.get_output_details()[OUTPUT_NAME]
            self.output_shape = tuple(probabilities["shape"][1:].tolist())
            shapes = {row["index"]: row["shape"] for row in interpreter.get_tensor_details()}
            # The word embeddings have more rows than the other matrices that are looked up.
            looked_up = [i for op in operators if op["op_name"] in LOOKUPS for i in op["inputs"]]
            self.vocab_size = max(int(shapes[i][0]) for i in looked_up if len(shapes[i]) == 2)
            for length in self.lengths:  # some damage shows only here
                self.run(self.inputs(ONE_PIECE, length))
        except (ValueError, RuntimeError, KeyError) as error:
            raise ValueError(
                f"{name}: not a TFLite model that this runtime can load ({one_line(error)}). Export it "
                "again, or as `int8_per_tensor` for an old runtime."
            ) from error
        names = [operator["op_name"] for operator in operators]
        self.op_names = [name for name in names if name != "DELEGATE"]
        self.num_partitions = names.count("DELEGATE")

    def outputs(self, inputs):
        """Runs once. {name: int32 (1, seq)} -> {name: float32 (1, classes) or (1, seq, labels)}."""
        with self._lock:  # the interpreter keeps the inputs; threads wait for each other
            return self._runs[inputs["input_mask"].shape[-1]](**inputs)

    def run(self, inputs):
        """The probabilities alone of `outputs`."""
        return self.outputs(inputs)[OUTPUT_NAME]

    def forward(self, encodings):
        """Probabilities of encoded texts: list of float32, (classes,) or (number of ids, labels).

        Args:
            encodings: objects with `ids` and `type_ids`, at most `sequence_length` long.
        """
        return unpadded([self.run(self.inputs(text))[0] for text in encodings], encodings)

    def inputs(self, encoding, length=None):
        """One encoded text, of at most `sequence_length` pieces, as the three inputs; padded with zeros to `length`, or to
        the shortest of `lengths` that it fits."""
        number = len(encoding.ids)
        length = length or next((x for x in self.lengths if x >= number), self.sequence_length)
        inputs = np.zeros((3, 1, length), np.int32)
        inputs[:, 0, :number] = encoding.ids, np.ones(number), encoding.type_ids
        return dict(zip(INPUT_NAMES, inputs))


def unpadded(rows, encodings):
    """Cuts each (seq, labels) to (number of ids, labels); leaves (classes,) alone."""
    return [
        row if row.ndim == 1 else row[: len(text.ids)]
        for row, text in zip(rows, encodings, strict=True)
    ]


def read(source):
    """(name for messages, bytes) of a path, or of bytes; ValueError if they are not what was written."""
    name = "The model" if isinstance(source, bytes) else source
    content = source if name != source else Path(source).read_bytes()
    check_stamp(name, content)
    return name, content


def one_line(error):
    return " ".join(str(error).split())


def _interpreter_class():
    for package in ("ai_edge_litert", "tflite_runtime"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(f"{package}.interpreter").Interpreter
    raise ImportError(
        "A TFLite runtime must be installed: pip install ai-edge-litert (or, on an old system, "
        "tflite-runtime)."
    )
