"""The exported graph as .onnx, by tf2onnx; and dynamic int8, by ONNX Runtime's own quantiser.

tf2onnx 1.17 knows neither `Erfc`, which TensorFlow's GELU is made of, nor layer normalisation, and it
writes a Dense of three axes as two reshapes around a product. ONNX Runtime's fusions find none of that,
so `_fuse` writes these three as ONNX does: erf, LayerNormalization, a product of three axes. Nothing
else is changed. tf2onnx's own optimiser is left out: it would take most of the time, and ONNX Runtime
does the same when it loads the file.

It runs in the process that holds the model. Measured with a BERT-base, writing peaks at 2.8 GB (int8: 3.3)
so. A child process, which gets graph and weights from files, peaks at 2.3 (2.7) itself, beside 1.1 of its
parent: 3.4 (3.8) GB together, and TensorFlow is imported once more for each file.
"""

import tempfile
from pathlib import Path

import numpy as np

from keras_compress.backend import tf
from mobile_export.graph import ExportError
from mobile_export.litert import OUTPUT_NAME
from mobile_export.stamp import STAMP, stamped

OPSET = 18  # the newest that tf2onnx writes
# Else the quantiser asks for pre-processing: it infers shapes itself, and the rest is not needed.
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}


def to_onnx(graph, fuse=False, int8=False):
    """The bytes of an .onnx file.

    Args:
        graph: `Graph`. fuse: has no effect here.
        int8: dynamic int8: weights of one scale per output, activations quantised when it runs.
    Raises:
        ExportError: on an operator that ONNX does not have; on a BiLSTM, whose loop tf2onnx leaves
            unfinished.
    """
    import onnx
    from tf2onnx import tf_loader, tfonnx

    name, function = graph.config.architecture, graph.function
    if name == "bilstm":
        raise ExportError(
            f"A model to export as ONNX must be a BERT. Received: a {name}. Export it as TFLite."
        )
    ids = [tensor.name for tensor in function.inputs if tensor.dtype == tf.int32]
    (output,) = [tensor.name for tensor in function.outputs]
    definition, weights = _weights_as_inputs(function)
    inputs = [*ids, *(f"{weight}:0" for weight in weights)]
    with tf.Graph().as_default():
        tf.import_graph_def(definition, name="")
        definition = tf_loader.tf_optimize(inputs, [output], definition)
    with tf.Graph().as_default() as without_weights:
        tf.import_graph_def(definition, name="")
        converted = tfonnx.process_tf_graph(
            without_weights,
            opset=OPSET,
            input_names=inputs,
            output_names=[output],
            tensors_to_rename={**{i: i.split(":")[0] for i in ids}, output: OUTPUT_NAME},
            custom_rewriter=[_fuse],
        )
    model = converted.make_model(name)
    nodes = model.graph.node
    unknown = {node.op_type for node in nodes if not onnx.defs.has(node.op_type, node.domain)}
    if unknown:
        raise ExportError(
            "The graph must convert to ONNX's own operators alone. Received: "
            f"{', '.join(sorted(unknown))}."
        )
    del model.graph.input[len(ids) :]
    for weight, variable in weights.items():
        value = onnx.numpy_helper.from_array(variable.numpy(), f"{weight}:0")
        model.graph.initializer.append(value)
    props = {"vocab_size": str(graph.config.vocab_size), "sha256": STAMP.decode() + 64 * "0"}
    onnx.helper.set_model_props(model, props | (PREPARED if int8 else {}))
    return stamped(_quantize(model) if int8 else model.SerializeToString())


def _weights_as_inputs(function):
    """(GraphDef of a function in which weights are placeholders, {name of a placeholder: variable}).

    tf2onnx copies constants about twenty times. So it sees none of the weights.
    """
    by_handle = {id(variable.handle): variable for variable in function.variables}
    captures = function.graph.captures
    weights = {inside.op.name: by_handle[id(handle)] for handle, inside in captures}
    definition = function.graph.as_graph_def()
    reads = {n.name: n.input[0] for n in definition.node if n.op == "ReadVariableOp"}
    nodes = [node for node in definition.node if node.name not in reads]
    for node in nodes:
        if node.name in weights:
            node.attr["dtype"].type = weights[node.name].dtype.as_datatype_enum
            node.attr["shape"].shape.CopyFrom(weights[node.name].shape.as_proto())
        elif node.op == "ResourceGather":
            node.op = "Gather"
            node.attr["Tparams"].CopyFrom(node.attr.pop("dtype"))
            del node.attr["batch_dims"]
        node.input[:] = [reads.get(name, name) for name in node.input if name[0] != "^"]
    definition = tf.compat.v1.GraphDef(node=nodes, versions=definition.versions)
    return definition, weights


def _quantize(model):
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        float_path, path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, float_path, save_as_external_data=True)
        model.Clear()  # the quantiser has copies of its own
        quantize_dynamic(float_path, path, weight_type=QuantType.QInt8, per_channel=True)
        return path.read_bytes()


def _fuse(graph, operators):
    """A rewriter of tf2onnx: TensorFlow's operators in, some of ONNX's own in their place."""
    from tf2onnx.graph_matcher import GraphMatcher, OpTypePattern

    def op(kind, *inputs, name=None):
        return OpTypePattern(kind, name, inputs)

    def any_tensor(name):
        return op("*", name=name)

    def make(kind, *inputs, **attributes):
        return graph.make_node(kind, [*inputs], attributes).output[0]

    def gelu(match):  # x (1 + erf(x / sqrt(2))) / 2
        constants = graph.make_consts((2**0.5, 1, 0.5), np.float32)
        root, one, half = (constant.output[0] for constant in constants)
        x = match.get_tensor("x")
        erf = make("Erf", make("Div", x, root))
        return make("Mul", make("Mul", x, make("Add", erf, one)), half)

    def norm(match):
        tensors = map(match.get_tensor, ("x", "gamma", "beta"))
        epsilon = float(match.get_op("epsilon").get_tensor_value())
        return make("LayerNormalization", *tensors, epsilon=epsilon)

    def dense(match):
        x, kernel = map(match.get_tensor, ("x", "kernel"))
        return make("MatMul", x, kernel) if len(graph.get_shape(x)) == 3 else None

    x, add = any_tensor("x"), "Add|AddV2"
    erfc = op("Erfc", op("Mul", "Neg", "Const"))
    scale = op("Rsqrt", op(add, "Mean", op("Const", name="epsilon")))
    normalised = op("Mul", op("Mul", op("Sub", x, "Mean"), scale), any_tensor("gamma"))
    product = op("MatMul", op("Reshape", x, "Const"), any_tensor("kernel"))
    for pattern, replacement in (
        (op("Mul", op("Mul", "Const", x), erfc, name="out"), gelu),
        (op(add, normalised, any_tensor("beta"), name="out"), norm),
        (op("Reshape", product, "Const", name="out"), dense),
    ):
        matcher = GraphMatcher(pattern, allow_reorder=True)
        for match in list(matcher.match_ops(graph.get_nodes())):
            old, new = match.get_op("out"), replacement(match)
            if new:
                graph.replace_all_inputs(old.output[0], new)
                graph.remove_node(old.name)
    return graph.get_nodes()
