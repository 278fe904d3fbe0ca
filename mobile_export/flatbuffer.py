"""Changes in a .tflite file, which is a flatbuffer, by the classes of its schema."""

import flatbuffers
import numpy as np
from ai_edge_litert.schema_py_generated import ModelT


def edited(content, edit):
    """The bytes of a .tflite file after `edit` has changed its `ModelT` in place."""
    model = ModelT.InitFromPackedBuf(content)
    for buffer in model.buffers:
        # ai-edge-quantizer keeps data behind the flatbuffer, as offset and size. Clients that
        # rewrite the file, such as writers of metadata, drop silently what is not in it.
        if buffer.offset:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    edit(model)
    builder = flatbuffers.Builder(len(content) + 2**20)  # what is too small doubles
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(memoryview(builder.Bytes)[builder.Head() :])
