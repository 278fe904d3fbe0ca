"""Weights of 4 and 2 bits in a .tflite file, by ai-edge-quantizer: TensorFlow's converter writes 8 bits or float only.

Every FULLY_CONNECTED gets one scale per output, max|w| / (2^(bits - 1) - 1), the word table one per row; activations
are quantised to 8 bits by the runtime. Weights that were trained on such a grid keep their integers. The file is
smaller than one of int8, and not faster: the kernels unpack to 8 bits before they multiply.
"""

import numpy as np

PER_CHANNEL_VERSION = 12
MIN_TABLE_BITS = 4  # as `quantization.fake_quant.table_bits`, where the reason is


def low_bits(content, bits):
    """The same model with weights of `bits` (4 or 2) bits; a word table has 4 at least.

    Args:
        content: bytes of a float32 .tflite file.
    Returns:
        bytes.
    """
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import Quantizer

    quantizer = Quantizer(edited(content, _look_up_embeddings))
    quantizer.add_dynamic_config(".*", TFLOperationName.FULLY_CONNECTED, bits)
    quantizer.add_dynamic_config(".*", TFLOperationName.EMBEDDING_LOOKUP, max(bits, MIN_TABLE_BITS))
    quantized = quantizer.quantize(
        enable_progress_bar=False, enable_progress_report=False
    ).quantized_model
    return edited(bytes(quantized), _raise_versions)


def edited(content, edit):
    """Reads a flatbuffer, changes its objects in place, and writes it again."""
    import flatbuffers
    from ai_edge_litert.schema_py_generated import Model, ModelT

    model = ModelT.InitFromObj(Model.GetRootAsModel(content))
    for buffer in model.buffers:
        # ai-edge-quantizer keeps data behind the flatbuffer, as offset and size. Clients that rewrite the file, such as
        # writers of metadata, drop silently what is not in it.
        if buffer.offset:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    edit(model)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _look_up_embeddings(model):
    """GATHER(table, ids) becomes EMBEDDING_LOOKUP(ids, table): ai-edge-quantizer leaves GATHER alone, and with it the
    largest tensor of a small BERT. The look-up takes ids of one axis, so two RESHAPEs go around it. Of the type
    table's two rows nothing is gained; it stays."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    graph = model.subgraphs[0]
    ids = next(t for t in model.signatureDefs[0].inputs if t.name == b"input_word_ids").tensorIndex
    lookup = next(
        operator
        for operator in graph.operators
        if ids in operator.inputs
        and model.operatorCodes[operator.opcodeIndex].builtinCode == BuiltinOperator.GATHER
    )
    table, rows = lookup.inputs[0], lookup.outputs[0]
    flat_ids = _add_tensor(model, graph.tensors[ids].shape[1:], graph.tensors[ids].type)
    flat_rows = _add_tensor(model, graph.tensors[rows].shape[1:], graph.tensors[rows].type)
    place = graph.operators.index(lookup)
    graph.operators[place : place + 1] = [
        _operator(model, BuiltinOperator.RESHAPE, [ids, _shape_of(model, flat_ids)], flat_ids),
        _operator(model, BuiltinOperator.EMBEDDING_LOOKUP, [flat_ids, table], flat_rows),
        _operator(model, BuiltinOperator.RESHAPE, [flat_rows, _shape_of(model, rows)], rows),
    ]


def _operator(model, kind, inputs, output):
    from ai_edge_litert.schema_py_generated import OperatorCodeT, OperatorT

    code, operator = OperatorCodeT(), OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = 1
    model.operatorCodes.append(code)
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
    return operator


def _add_tensor(model, shape, kind, data=None):
    """Appends a tensor and returns its index; `data`: bytes of a constant."""
    from ai_edge_litert.schema_py_generated import BufferT, TensorT

    tensor, buffer, tensors = TensorT(), BufferT(), model.subgraphs[0].tensors
    buffer.data = None if data is None else np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    tensor.buffer, tensor.type, tensor.shape = (
        len(model.buffers) - 1,
        kind,
        np.array(shape, np.int32),
    )
    tensor.name = f"word_lookup_{len(tensors)}".encode()
    tensors.append(tensor)
    return len(tensors) - 1


def _shape_of(model, tensor):
    """Index of a constant that holds a tensor's shape, the second input of RESHAPE."""
    from ai_edge_litert.schema_py_generated import TensorType

    shape = np.array(model.subgraphs[0].tensors[tensor].shape, np.int32)
    return _add_tensor(model, shape.shape, TensorType.INT32, shape.tobytes())


def _raise_versions(model):
    """ai-edge-quantizer writes one scale per channel under version 1 of FULLY_CONNECTED, whose kernels know one scale
    only: an old runtime (2.14) would load the file and be wrong in silence. Version 12 it refuses."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    for code in model.operatorCodes:
        if code.builtinCode == BuiltinOperator.FULLY_CONNECTED:
            code.version = max(code.version, PER_CHANNEL_VERSION)
