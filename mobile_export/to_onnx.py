"""The exported graph as .onnx, by tf2onnx; and dynamic int8, by ONNX Runtime's own quantiser.

tf2onnx 1.17 knows neither `Erfc`, which TensorFlow's GELU is made of, nor layer normalisation, and it writes a Dense of
three axes as two reshapes around a product. ONNX Runtime's fusions find none of that, so `_fuse` writes these three as
ONNX does: erf, LayerNormalization, a product of three axes. Nothing else is changed; tf2onnx's own optimiser is left
out: it would take most of the time, and ONNX Runtime does the same when it loads the file.
"""

import tempfile
from pathlib import Path

import numpy as np

from keras_compress.backend import tf
from mobile_export.convert import ExportError, exported_graph
from mobile_export.litert import OUTPUT_NAME
from mobile_export.ort import PACKAGES, require

OPSET = 18  # the newest that tf2onnx writes


def to_onnx(task_model, sequence_length, cls_only=False):
    """The bytes of a float32 .onnx file; arguments as in `convert.export`.

    Raises:
        ImportError: naming the packages to install.
        ExportError: on an operator that ONNX does not have; on a BiLSTM, whose loop tf2onnx leaves unfinished.
    """
    if task_model.config.architecture != "bert":
        raise ExportError(
            f"A model to export as ONNX must be a BERT. Received: a {task_model.config.architecture}. "
            "Export it as TFLite."
        )
    require(*PACKAGES)
    import onnx
    from tf2onnx import tf_loader, tfonnx

    _, function = exported_graph(task_model, sequence_length, cls_only)
    inputs = {
        tensor.name: tensor.name.split(":")[0]
        for tensor in function.inputs
        if tensor.dtype == tf.int32
    }
    (output,) = function.outputs
    frozen = tf_loader.from_function(function, list(inputs), [output.name])
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen, name="")
        converted = tfonnx.process_tf_graph(
            graph,
            opset=OPSET,
            input_names=list(inputs),
            output_names=[output.name],
            tensors_to_rename={**inputs, output.name: OUTPUT_NAME},
            custom_rewriter=[_fuse],
        )
    model = converted.make_model(task_model.config.architecture)
    unknown = {
        node.op_type for node in model.graph.node if not onnx.defs.has(node.op_type, node.domain)
    }
    if unknown:
        raise ExportError(
            "onnx_float32: the graph must convert to ONNX's own operators alone. Received: "
            f"{', '.join(sorted(unknown))}."
        )
    onnx.helper.set_model_props(model, {"vocab_size": str(task_model.config.vocab_size)})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def quantize(content):
    """Dynamic int8: weights of one scale per output, activations quantised when it runs. Bytes to bytes."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared, path = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(
            onnx.load_from_string(content),
            prepared,
            skip_optimization=True,
            skip_symbolic_shape=True,
        )
        quantize_dynamic(prepared, path, weight_type=QuantType.QInt8, per_channel=True)
        return path.read_bytes()


def _fuse(graph, operators):
    """A rewriter of tf2onnx: TensorFlow's operators in, some of ONNX's own in their place."""
    from tf2onnx.graph_matcher import GraphMatcher
    from tf2onnx.graph_matcher import OpTypePattern as Op

    def replace(pattern, make):
        for match in list(GraphMatcher(pattern, allow_reorder=True).match_ops(graph.get_nodes())):
            old, new = match.get_op("out"), make(match.get_tensor, match.get_op)
            if new:
                graph.replace_all_inputs(old.output[0], new.output[0])
                graph.remove_node(old.name)

    def gelu(tensor, _):  # x (1 + erf(x / sqrt(2))) / 2
        root, one, half = (
            constant.output[0] for constant in graph.make_consts((2**0.5, 1, 0.5), np.float32)
        )
        (erf,) = graph.make_node("Erf", graph.make_node("Div", [tensor("x"), root]).output).output
        (twice,) = graph.make_node(
            "Mul", [tensor("x"), *graph.make_node("Add", [erf, one]).output]
        ).output
        return graph.make_node("Mul", [twice, half])

    def norm(tensor, operator):
        return graph.make_node(
            "LayerNormalization",
            [tensor("x"), tensor("gamma"), tensor("beta")],
            {"epsilon": float(operator("epsilon").get_tensor_value())},
        )

    def dense(tensor, _):
        if len(graph.get_shape(tensor("x"))) == 3:
            return graph.make_node("MatMul", [tensor("x"), tensor("kernel")])

    any_add = "Add|AddV2"
    replace(
        Op(
            "Mul",
            "out",
            [
                Op("Mul", inputs=[Op("Const"), Op("*", "x")]),
                Op("Erfc", inputs=[Op("Mul", inputs=[Op("Neg"), Op("Const")])]),
            ],
        ),
        gelu,
    )
    scale = Op("Rsqrt", inputs=[Op(any_add, inputs=[Op("Mean"), Op("Const", "epsilon")])])
    normalised = Op(
        "Mul",
        inputs=[
            Op("Sub", inputs=[Op("*", "x"), Op("Mean")]),
            Op("Mul", inputs=[Op("*", "gamma"), scale]),
        ],
    )
    replace(Op(any_add, "out", [normalised, Op("*", "beta")]), norm)
    replace(
        Op(
            "Reshape",
            "out",
            [
                Op(
                    "MatMul",
                    inputs=[
                        Op("Reshape", inputs=[Op("*", "x"), Op("Const")]),
                        Op("Const", "kernel"),
                    ],
                ),
                Op("Const"),
            ],
        ),
        dense,
    )
    return graph.get_nodes()
