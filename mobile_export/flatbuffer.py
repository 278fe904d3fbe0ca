"""Changes in a .tflite file, which is a flatbuffer, by the classes of its schema."""

import flatbuffers
import numpy as np
from ai_edge_litert.schema_py_generated import BufferT, MetadataT, ModelT

from mobile_export.stamp import STAMP, stamped


def edited(content, edit):
    """The bytes of a .tflite file after `edit` has changed its `ModelT` in place, `stamped` anew."""
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
    del model, builder.Bytes[: builder.Head()]  # one copy less of the weights
    return stamped(builder.Bytes)


def add_metadata(model, name, content):
    """Adds an entry to the metadata of a `ModelT`."""
    model.buffers.append(BufferT(np.frombuffer(content, np.uint8)))
    model.metadata.append(MetadataT(name, len(model.buffers) - 1))


def add_stamp(model):
    """Makes room in a `ModelT` for the SHA-256 of the file."""
    add_metadata(model, b"keras_compress", STAMP + bytes(64))
