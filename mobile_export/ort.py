"""Runs an exported .onnx file with ONNX Runtime, as litert.py runs a .tflite file. No TensorFlow."""

from importlib.util import find_spec
from pathlib import Path

from mobile_export.litert import FILE_IDENTIFIER, ONE_PIECE, Runner, one_line, read

PACKAGES = ("onnx", "onnxruntime", "tf2onnx")  # to write a file; to run it, onnxruntime alone


def require(*packages):
    """Raises an ImportError that names those packages that are not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX needs packages that are missing: pip install {' '.join(missing)}")


class OnnxRunner:
    """An exported .onnx model in memory, with the attributes and functions of `litert.Runner`.

    Args:
        source: path of an .onnx file, or its bytes.
        num_threads: of ONNX Runtime, whose optimisations are all on.
    Raises:
        ImportError: without onnxruntime.
        ValueError: if the file is damaged, or has other inputs than an exported model.
    """

    num_partitions = None  # of XNNPACK
    forward, inputs, run = Runner.forward, Runner.inputs, Runner.run

    def __init__(self, source, num_threads=1):
        require("onnxruntime")
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        name, content = read(source)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            self.sequence_length = self._session.get_inputs()[0].shape[-1]
            self.lengths = [self.sequence_length]
            self.output_shape = tuple(self._session.get_outputs()[0].shape[1:])
            self.vocab_size = int(self._session.get_modelmeta().custom_metadata_map["vocab_size"])
            self.forward([ONE_PIECE])  # other inputs than those of an exported model fail here
        except (
            *(KeyError, IndexError, TypeError, ValueError),
            *(errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf),
            *(errors.NotImplemented, errors.RuntimeException),
        ) as error:
            raise ValueError(
                f"{name}: not a model that ONNX Runtime can load ({one_line(error)}). Export it again."
            ) from error

    def outputs(self, inputs):
        """Runs once. {name: int32 (1, seq)} -> {name: float32 (1, classes) or (1, seq, labels)}."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(None, inputs)))


def open_model(source, num_threads=1):
    """The runner of an exported file: bytes are told apart by their start, paths by their ending."""
    if isinstance(source, bytes):
        is_onnx = source[4:8] != FILE_IDENTIFIER
    else:
        is_onnx = Path(source).suffix == ".onnx"
    return (OnnxRunner if is_onnx else Runner)(source, num_threads)
