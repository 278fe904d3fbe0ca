"""Runs an exported file: by signature and by name, with ai-edge-litert or, where only that is installed,
tflite-runtime. No TensorFlow, so that a small machine can use it."""

from pathlib import Path

import numpy as np

SIGNATURE = "serving_default"
INPUT_NAMES = ("input_word_ids", "input_mask", "input_type_ids")  # those of the encoder
OUTPUT_NAME = "probabilities"


class Runner:
    """An exported model in memory.

    Attributes:
        sequence_length: of its inputs. output_shape: (classes,) or (seq, labels). vocab_size: rows of
            the word table. op_names: list of str, the file's own operators. num_partitions: how many XNNPACK
            partitions it runs in (1 = nothing falls back in between).

    Args:
        source: path of a .tflite file, or its bytes.
        num_threads: of XNNPACK.
    Raises:
        ValueError: if the file is missing, empty, damaged, or has not the inputs of `mobile_export.convert`.
    """

    def __init__(self, source, num_threads=1):
        name = "The model" if isinstance(source, (bytes, bytearray)) else str(source)
        content = bytes(source) if isinstance(source, (bytes, bytearray)) else read(source)
        if content[4:8] != b"TFL3":  # the file identifier of TFLite's flatbuffers
            raise ValueError(
                f"{name}: must be a TFLite file. Received: {len(content)} bytes that do not start like "
                "one. Export or copy it again."
            )
        try:
            self._interpreter = _interpreter_class()(model_content=content, num_threads=num_threads)
            self.op_names = [op["op_name"] for op in self._interpreter._get_ops_details()]
            self.op_names = [op for op in self.op_names if op != "DELEGATE"]
            self._interpreter.allocate_tensors()
            self._run = self._interpreter.get_signature_runner(SIGNATURE)
            self.sequence_length = int(self._run.get_input_details()["input_word_ids"]["shape"][-1])
            self.output_shape = tuple(
                self._run.get_output_details()[OUTPUT_NAME]["shape"][1:].tolist()
            )
            self.vocab_size = self._rows_of_table("input_word_ids")
            self.run(
                dict.fromkeys(INPUT_NAMES, np.zeros((1, self.sequence_length), np.int32))
            )  # may show damage
        except (ValueError, RuntimeError, KeyError, StopIteration) as error:
            reason = " ".join(str(error).split()) or "no table of words"
            raise ValueError(
                f"{name}: not a model that this runtime can load ({reason}). Export it again, or as "
                "`int8_per_tensor` for an old runtime."
            ) from error
        self.num_partitions = sum(
            op["op_name"] == "DELEGATE" for op in self._interpreter._get_ops_details()
        )

    def run(self, inputs):
        """One forward pass. Inputs by name, int32 (1, seq) each -> float32 (1, classes) or (1, seq, labels)."""
        return self._run(**inputs)[OUTPUT_NAME]

    def forward(self, encodings):
        """Probabilities of encoded texts: list of float32 arrays, (classes,) or (number of ids, labels) each.

        Args:
            encodings: objects with `ids` and `type_ids`, as the tokenizer makes them, at most `sequence_length` long.
        """
        rows = [self.run(self.inputs(encoding))[0] for encoding in encodings]
        return [
            row if row.ndim == 1 else row[: len(encoding.ids)]
            for row, encoding in zip(rows, encodings)
        ]

    def inputs(self, encoding):
        """One encoded text as the three inputs, padded; what stands in padded places does not matter."""
        length = len(encoding.ids)
        if not 0 < length <= self.sequence_length or len(encoding.type_ids) != length:
            raise ValueError(
                f"A text must have 1 to {self.sequence_length} ids and as many type ids. Received: "
                f"{length} and {len(encoding.type_ids)}. Encode with `max_length={self.sequence_length}`."
            )
        rows, padding = (
            (encoding.ids, [1] * length, encoding.type_ids),
            [0] * (self.sequence_length - length),
        )
        return {
            name: np.array([[*row, *padding]], np.int32) for name, row in zip(INPUT_NAMES, rows)
        }

    def _rows_of_table(self, input_name):
        """Rows of the embedding table that an input looks up (an id beyond them would read foreign memory)."""
        ids, ops = (
            {self._run.get_input_details()[input_name]["index"]},
            self._interpreter._get_ops_details(),
        )
        ids |= {
            op["outputs"][0] for op in ops if op["op_name"] == "RESHAPE" and op["inputs"][0] in ids
        }
        lookup = next(
            op
            for op in ops
            if op["op_name"] in ("GATHER", "EMBEDDING_LOOKUP") and ids & {*op["inputs"]}
        )
        table = next(index for index in lookup["inputs"] if index not in ids)
        return int(
            next(
                t["shape"][0] for t in self._interpreter.get_tensor_details() if t["index"] == table
            )
        )


def read(path):
    """The bytes of a file."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file.")
    return Path(path).read_bytes()


def _interpreter_class():
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError:
            raise ImportError(
                "A TFLite runtime must be installed: pip install ai-edge-litert (or, on an old system, "
                "tflite-runtime)."
            ) from None
    return Interpreter
