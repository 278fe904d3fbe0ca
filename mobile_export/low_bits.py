"""Weights of 4 and 2 bits in a .tflite file, by ai-edge-quantizer.

TensorFlow's converter writes 8 bits or float only. Every FULLY_CONNECTED gets one scale per output,
max|w| / (2^(bits - 1) - 1), the word embeddings one per row; activations are quantised to 8 bits by
the runtime. Weights that were trained on such a grid keep their integers. The file is smaller than
one of int8, and not faster: the kernels unpack to 8 bits before they multiply.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobile_export.flatbuffer import edited

PER_CHANNEL_VERSION = 12
MIN_TABLE_BITS = 4  # as `quantization.fake_quant.table_bits`, where the reason is


def low_bits(content, bits):
    """The same model with weights of 4 or 2 bits; word embeddings have 4 at least.

    Args:
        content: bytes of a float32 .tflite file.
    """
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import Quantizer

    quantizer = Quantizer(edited(content, _look_up_embeddings))
    quantizer.add_dynamic_config(".*", TFLOperationName.FULLY_CONNECTED, bits)
    quantizer.add_dynamic_config(".*", TFLOperationName.EMBEDDING_LOOKUP, max(bits, MIN_TABLE_BITS))
    result = quantizer.quantize(enable_progress_bar=False, enable_progress_report=False)
    return edited(bytes(result.quantized_model), _raise_versions)


def _look_up_embeddings(model):
    """GATHER(table, ids) becomes EMBEDDING_LOOKUP(ids, table).

    ai-edge-quantizer leaves GATHER alone, and with it the largest tensor of a small BERT. The look-up
    takes ids of one axis, so it stands between two RESHAPEs. The type embeddings have two rows and
    stay as they are.
    """
    tensors, operators = model.subgraphs[0].tensors, model.subgraphs[0].operators
    ids = next(t for t in model.signatureDefs[0].inputs if t.name == b"input_word_ids").tensorIndex
    lookup = next(operator for operator in operators if ids in operator.inputs)

    def add_tensor(kind, shape, data=None):
        model.buffers.append(schema.BufferT(data))
        name = f"word_lookup_{len(tensors)}".encode()
        tensors.append(schema.TensorT(shape, kind, len(model.buffers) - 1, name))
        return len(tensors) - 1

    def add_flat(tensor):
        return add_tensor(tensors[tensor].type, tensors[tensor].shape[1:])

    def operator(kind, inputs, output):
        model.operatorCodes.append(schema.OperatorCodeT(kind, builtinCode=kind))
        return schema.OperatorT(len(model.operatorCodes) - 1, inputs, [output])

    def reshape(tensor, output):
        shape = np.array(tensors[output].shape, np.int32)
        shape = add_tensor(schema.TensorType.INT32, shape.shape, shape.view(np.uint8))
        return operator(schema.BuiltinOperator.RESHAPE, [tensor, shape], output)

    (table, _), (rows,) = lookup.inputs, lookup.outputs
    flat_ids, flat_rows = add_flat(ids), add_flat(rows)
    position = operators.index(lookup)
    operators[position : position + 1] = [
        reshape(ids, flat_ids),
        operator(schema.BuiltinOperator.EMBEDDING_LOOKUP, [flat_ids, table], flat_rows),
        reshape(flat_rows, rows),
    ]


def _raise_versions(model):
    """Makes an old runtime (2.14) refuse the file instead of being wrong in silence.

    ai-edge-quantizer writes one scale per channel under version 1 of FULLY_CONNECTED, whose kernels
    know one scale only.
    """
    for code in model.operatorCodes:
        if code.builtinCode == schema.BuiltinOperator.FULLY_CONNECTED:
            code.version = PER_CHANNEL_VERSION
