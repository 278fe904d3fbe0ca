"""Weights of 4 and 2 bits in a .tflite file, by ai-edge-quantizer.

TensorFlow's converter writes 8 bits or float only. Every FULLY_CONNECTED gets one scale per output,
max|w| / (2^(bits - 1) - 1), the word embeddings one per row; activations are quantised to 8 bits by
the runtime. Weights that were trained on such a grid keep their integers. The file is smaller than
one of int8, and not faster: the kernels unpack to 8 bits before they multiply.

In 2 bits, codes -1, 0, 1, these weights are stored exactly (a row: the weights of one output, or of one word):

    three values    rows of -a, 0, a                                    one matrix
    four values     rows of +-a +-b, sums of two binary matrices        two matrices, whose products are added

What stands beside three values and has others, as the classifier of a ternary model, gets 8 bits.
"""

import re

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobile_export.flatbuffer import edited

PER_CHANNEL_VERSION = 12
MIN_TABLE_BITS = 4  # as `quantization.fake_quant.table_bits`, where the reason is
OPS = schema.BuiltinOperator
WITH_WEIGHTS = {OPS.FULLY_CONNECTED: "FULLY_CONNECTED", OPS.EMBEDDING_LOOKUP: "EMBEDDING_LOOKUP"}


def low_bits(content, bits):
    """The same model with weights of 4 or 2 bits; word embeddings have 4 at least, unless 2 bits hold them exactly.

    Args:
        content: bytes of a float32 .tflite file.
    """
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import Quantizer

    plan = []  # (name of an operator's output, kind, bits)

    def edit(model):
        _look_up_embeddings(model)
        if bits == 2:
            _split_sums(model)
        plan.extend(_bits_of_each(model, bits))

    quantizer = Quantizer(edited(content, edit))
    for name, kind, width in plan:
        scope = f"^{re.escape(name)}(;|$)"
        quantizer.add_dynamic_config(scope, TFLOperationName[WITH_WEIGHTS[kind]], width)
    result = quantizer.quantize(enable_progress_bar=False, enable_progress_report=False)
    return edited(bytes(result.quantized_model), _raise_versions)


def _bits_of_each(model, bits):
    """[(name of the output, kind, bits)] of all operators with weights."""
    tensors = model.subgraphs[0].tensors
    rows = [
        (tensors[operator.outputs[0]].name.decode(), kind, bits == 2 and _has_three_values(weights))
        for operator, kind, _, weights in _with_weights(model)
    ]
    trained = any(exact for _, kind, exact in rows if kind == OPS.FULLY_CONNECTED)
    for name, kind, exact in rows:
        if exact:
            yield name, kind, bits
        elif kind == OPS.EMBEDDING_LOOKUP:
            yield name, kind, max(bits, MIN_TABLE_BITS)
        else:
            yield name, kind, 8 if trained else bits


def _with_weights(model):
    """(operator, kind, tensor of the weights, float32 (rows, columns)) of products and look-ups of a constant."""
    tensors, kinds = model.subgraphs[0].tensors, [c.builtinCode for c in model.operatorCodes]
    for operator in list(model.subgraphs[0].operators):
        kind = kinds[operator.opcodeIndex]
        if (
            kind in WITH_WEIGHTS
            and model.buffers[tensors[operator.inputs[1]].buffer].data is not None
        ):
            tensor = tensors[operator.inputs[1]]
            data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
            yield operator, kind, tensor, data.view(np.float32).reshape(tensor.shape)


def _levels(weights):
    """The largest and the smallest |w| of each row, (rows, 1), and which weights have the largest, and the smallest."""
    sizes = np.abs(weights)
    high, low = sizes.max(-1, keepdims=True), sizes.min(-1, keepdims=True)
    return high, low, *(np.abs(sizes - level) <= 1e-5 * high for level in (high, low))


def _has_three_values(weights):
    """Whether every row holds -a, 0 and a alone."""
    high, _, is_high, _ = _levels(weights)
    return bool((is_high | (np.abs(weights) <= 1e-5 * high)).all())


def _split_sums(model):
    """Operators whose weights are sums of two binary matrices become two, and their results are added."""
    graph, seconds = model.subgraphs[0], {}  # {buffer of the first matrix: tensor of the second}
    for operator, kind, tensor, weights in _with_weights(model):
        high, low, is_high, is_low = _levels(weights)
        if tensor.buffer not in seconds:
            if _has_three_values(weights) or not (is_high | is_low).all():
                continue
            # w = +-(a + b) or +-(a - b)
            sign, a, b = np.where(weights < 0, -1, 1), (high + low) / 2, (high - low) / 2
            first, second = sign * a, np.where(is_high, sign, -sign) * b
            model.buffers[tensor.buffer].data = _bytes_of(first)
            seconds[tensor.buffer] = _add_tensor(
                model, tensor.type, tensor.shape, _bytes_of(second)
            )
        (output,) = operator.outputs
        total, options = graph.tensors[output], schema.AddOptionsT()
        parts = [_add_tensor(model, total.type, total.shape) for _ in range(2)]
        inputs = [operator.inputs[0], seconds[tensor.buffer], *operator.inputs[2:]]
        twin = schema.OperatorT(operator.opcodeIndex, inputs, parts[1:])
        if kind == OPS.FULLY_CONNECTED:
            twin.inputs[2:] = [-1]  # the bias is added once
            options.fusedActivationFunction = operator.builtinOptions.fusedActivationFunction
            operator.builtinOptions.fusedActivationFunction = 0
            twin.builtinOptionsType = operator.builtinOptionsType
            twin.builtinOptions = operator.builtinOptions
        operator.outputs = parts[:1]
        add = _operator(model, OPS.ADD, parts, output)
        add.builtinOptionsType, add.builtinOptions = schema.BuiltinOptions.AddOptions, options
        position = graph.operators.index(operator) + 1
        graph.operators[position:position] = [twin, add]


def _bytes_of(values):
    return np.ascontiguousarray(values, np.float32).view(np.uint8).ravel()


def _add_tensor(model, kind, shape, data=None):
    """The number of a new tensor."""
    tensors = model.subgraphs[0].tensors
    model.buffers.append(schema.BufferT(data))
    name = f"low_bits_{len(tensors)}".encode()
    tensors.append(schema.TensorT(shape, kind, len(model.buffers) - 1, name))
    return len(tensors) - 1


def _operator(model, kind, inputs, output):
    model.operatorCodes.append(schema.OperatorCodeT(kind, builtinCode=kind))
    return schema.OperatorT(len(model.operatorCodes) - 1, inputs, [output])


def _look_up_embeddings(model):
    """GATHER(table, ids) becomes EMBEDDING_LOOKUP(ids, table).

    ai-edge-quantizer leaves GATHER alone, and with it the largest tensor of a small BERT. The look-up
    takes ids of one axis, so it stands between two RESHAPEs. The type embeddings have two rows and
    stay as they are.
    """
    tensors, operators = model.subgraphs[0].tensors, model.subgraphs[0].operators
    ids = next(t for t in model.signatureDefs[0].inputs if t.name == b"input_word_ids").tensorIndex
    lookup = next(operator for operator in operators if ids in operator.inputs)

    def add_flat(tensor):
        return _add_tensor(model, tensors[tensor].type, tensors[tensor].shape[1:])

    def reshape(tensor, output):
        shape = np.array(tensors[output].shape, np.int32)
        kind = schema.TensorType.INT32
        shape = _add_tensor(model, kind, shape.shape, shape.view(np.uint8))
        return _operator(model, OPS.RESHAPE, [tensor, shape], output)

    (table, _), (rows,) = lookup.inputs, lookup.outputs
    flat_ids, flat_rows = add_flat(ids), add_flat(rows)
    position = operators.index(lookup)
    operators[position : position + 1] = [
        reshape(ids, flat_ids),
        _operator(model, OPS.EMBEDDING_LOOKUP, [flat_ids, table], flat_rows),
        reshape(flat_rows, rows),
    ]


def _raise_versions(model):
    """Makes an old runtime (2.14) refuse the file instead of being wrong in silence.

    ai-edge-quantizer writes one scale per channel under version 1 of FULLY_CONNECTED, whose kernels
    know one scale only.
    """
    for code in model.operatorCodes:
        if code.builtinCode == OPS.FULLY_CONNECTED:
            code.version = PER_CHANNEL_VERSION
