"""Runs an exported .onnx file with ONNX Runtime, as litert.py runs a .tflite file. No TensorFlow."""

from importlib.util import find_spec
from pathlib import Path

from mobile_export.litert import INPUT_NAMES, Runner, read

PACKAGES = ("onnx", "onnxruntime", "tf2onnx")  # to write a file; to run it, onnxruntime alone


def require(*packages):
    """Raises an ImportError that names those packages that are not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX needs packages that are missing: pip install {' '.join(missing)}")


class OnnxRunner:
    """An exported .onnx model in memory: attributes and functions as `litert.Runner`; all of ONNX Runtime's
    optimisations are on.

    Args:
        source: path of an .onnx file, or its bytes. num_threads: of ONNX Runtime.
    Raises:
        ImportError: without onnxruntime.
        ValueError: if the file is missing, damaged, or not of `mobile_export.convert`.
    """

    num_partitions = None  # of XNNPACK
    forward, inputs = Runner.forward, Runner.inputs

    def __init__(self, source, num_threads=1):
        require("onnxruntime")
        import onnxruntime

        name = "The model" if isinstance(source, bytes) else str(source)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(
                source if isinstance(source, bytes) else read(source),
                options,
                providers=["CPUExecutionProvider"],
            )
            shapes = {tensor.name: tensor.shape for tensor in self._session.get_inputs()}
            self.sequence_length = shapes["input_word_ids"][-1]
            self.output_shape = tuple(self._session.get_outputs()[0].shape[1:])
            fixed = isinstance(self.sequence_length, int)
            if not fixed or shapes != dict.fromkeys(INPUT_NAMES, [1, self.sequence_length]):
                raise ValueError(f"its inputs are {shapes}")
            self.vocab_size = int(self._session.get_modelmeta().custom_metadata_map["vocab_size"])
        except (KeyError, IndexError, TypeError, ValueError, *_errors()) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{name}: not a model that ONNX Runtime can load ({reason}). Export it again."
            ) from error

    def run(self, inputs):
        """One forward pass. Inputs by name, int32 (1, seq) each -> float32 (1, classes) or (1, seq, labels)."""
        return self._session.run(None, inputs)[0]


def open_model(path, num_threads=1):
    """The runner of an exported file, by its name: `OnnxRunner` for .onnx, else `Runner`."""
    return (OnnxRunner if Path(path).suffix == ".onnx" else Runner)(path, num_threads)


def logits_view(content):
    """A copy of an .onnx file's bytes that gives the logits: its output is what the last softmax reads."""
    import onnx

    model = onnx.load_from_string(content)
    softmax = next(node for node in reversed(model.graph.node) if node.op_type == "Softmax")
    model.graph.output[0].name = softmax.input[0]
    return model.SerializeToString()


def _errors():
    """What ONNX Runtime raises on a file that it cannot load."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NotImplemented,
        state.RuntimeException,
    )
