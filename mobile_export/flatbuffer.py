"""Changes in a .tflite file, which is a flatbuffer, by the classes of its schema."""

import functools
import hashlib
import itertools

import flatbuffers
import numpy as np
from ai_edge_litert.schema_py_generated import BufferT, MetadataT, ModelT

from mobile_export.stamp import STAMP, stamped


def edited(content, edit):
    """The bytes of a .tflite file after `edit` has changed its `ModelT` in place, `stamped` anew."""
    model = _unpacked(content)
    edit(model)
    _share_scales(model)
    builder = flatbuffers.Builder(len(content) + 2**20)  # what is too small doubles
    builder.Finish(model.Pack(builder), b"TFL3")
    del model, builder.Bytes[: builder.Head()]  # one copy less of the weights
    return stamped(builder.Bytes)


def _unpacked(content):
    model = ModelT.InitFromPackedBuf(content)
    for buffer in model.buffers:
        # ai-edge-quantizer keeps data behind the flatbuffer, as offset and size. Clients that
        # rewrite the file, such as writers of metadata, drop silently what is not in it.
        if buffer.offset:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def add_metadata(model, name, content):
    """Adds an entry to the metadata of a `ModelT`."""
    model.buffers.append(BufferT(np.frombuffer(content, np.uint8)))
    model.metadata.append(MetadataT(name, len(model.buffers) - 1))


def add_stamp(model):
    """Makes room in a `ModelT` for the SHA-256 of the file."""
    add_metadata(model, b"keras_compress", STAMP + bytes(64))


def with_signatures(content, others):
    """A .tflite file that can run as any of several, on one copy of the constants that they share.

    Args:
        content: bytes of a file of one graph, which stays the first graph and signature.
        others: {name of a signature: bytes of a file of one graph}.
    """

    def add(model):
        places = {}  # {SHA-256 of a constant: its buffer}
        for place, buffer in enumerate(model.buffers):
            places.setdefault(_digest(buffer), place)
        codes = [vars(code) for code in model.operatorCodes]
        for name, other in others.items():
            other = _unpacked(other)
            (graph,), (signature,) = other.subgraphs, other.signatureDefs
            for tensor in graph.tensors:
                buffer = other.buffers[tensor.buffer]
                tensor.buffer = places.setdefault(_digest(buffer), len(model.buffers))
                if tensor.buffer == len(model.buffers):
                    model.buffers.append(buffer)
            for operator in graph.operators:
                code = other.operatorCodes[operator.opcodeIndex]
                if vars(code) not in codes:
                    codes.append(vars(code))
                    model.operatorCodes.append(code)
                operator.opcodeIndex = codes.index(vars(code))
            signature.signatureKey = graph.name = name.encode()
            signature.subgraphIndex = len(model.subgraphs)
            model.subgraphs.append(graph)
            model.signatureDefs.append(signature)

    return edited(content, add)


def _digest(buffer):
    return hashlib.sha256(b"" if buffer.data is None else buffer.data).digest()


def _share_scales(model):
    """Has equal scales, one a channel, packed once: they are a third of what a further signature would add."""
    known = {}
    for tensor in itertools.chain(*(graph.tensors for graph in model.subgraphs)):
        about = tensor.quantization
        if about and about.scale is not None and len(about.scale) > 1:
            parts = [np.asarray(x).tobytes() for x in (about.scale, about.zeroPoint)]
            tensor.quantization = known.setdefault((*parts, about.quantizedDimension), about)
    for about in known.values():
        about.Pack = functools.partial(_once, about.Pack, [])


def _once(pack, places, builder):
    """What `pack` gives for the one builder of `edited`, which is not kept: it is as large as the file."""
    if not places:
        places.append(pack(builder))
    return places[0]
