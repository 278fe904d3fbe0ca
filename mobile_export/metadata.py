"""TFLite metadata: vocabulary, labels and a description in the .tflite file, so that MediaPipe's TextClassifier
(Python, Android, iOS, web) needs that file alone to go from text to label.

`vocab.txt` and `labels.txt` stand in a zip archive behind the model; what they are for stands in a second flatbuffer,
TFLITE_METADATA, which the first one holds (metadata_schema.fbs 1.1.0 of TensorFlow and MediaPipe). It is small enough
to be written here: MediaPipe need not be installed to export.

MediaPipe 1.2.2 splits and looks up words as BERT does, but lower-cases ASCII alone, keeps accents, control and format
characters, splits at ASCII white space alone, and stops at NUL. So it reads 19 of the 39 tricky strings of
tests/mobile_export/test_mediapipe.py otherwise than we do, and none after `mediapipe_compatible`. What stays: of
145,731 characters put between two letters 362, which the `tokenizers` library takes for letters (256 rare ideographs,
U+2B820 to U+2B91F, and punctuation of newer Unicode), or the reverse; and words of over 100 bytes but at most 100
characters, where MediaPipe counts the former and BERT the latter. Plain English and Chinese commands: 500 of 500 alike.
"""

import io
import re
import zipfile

import numpy as np
from tokenizers.normalizers import BertNormalizer

from keras_compress.bert.tokenizer import clean
from mobile_export.litert import Runner
from mobile_export.low_bits import edited

NAMES = {
    b"input_word_ids": "ids",
    b"input_mask": "mask",
    b"input_type_ids": "segment_ids",
}  # MediaPipe's names
FEATURE = (1, ())  # ContentProperties: a union's type, then its table
LABELS, VOCABULARY = 2, 5  # AssociatedFileType
BERT_TOKENIZER = 4  # ProcessUnitOptions


def no_metadata(task_model):
    """Why no metadata can be written for a model; None if they can."""
    if task_model.task != "classification":
        return (
            f"MediaPipe's TextClassifier gives one text one label, which {task_model.task} is not"
        )
    if task_model.config.architecture != "bert":
        return f"MediaPipe's TextClassifier takes a single graph, and a {task_model.config.architecture} has loops"
    if not task_model.tokenizer.lowercase:
        return "MediaPipe's TextClassifier lower-cases every text, which the model's vocabulary does not expect"
    return None


def mediapipe_compatible(text):
    """A text as BERT's own normaliser leaves it: what to give to MediaPipe's TextClassifier in its place.

    In other languages: drop control, format and private-use characters, turn any white space into a space, decompose
    (NFD) and drop the accents (Mn), lower-case.

    Args:
        text: str, any.
    Returns:
        str, which UTF-8 can hold and which has no NUL, where MediaPipe would stop to read.
    """
    return BertNormalizer(lowercase=True).normalize_str(clean(text))


def with_metadata(content, task_model, description):
    """An exported model with the metadata of MediaPipe's TextClassifier; the model in it stays as it is.

    Args:
        content: bytes of the .tflite file.
        task_model: `TaskModel` it was made from, one for which `no_metadata` is None.
        description: str, for whoever opens the file.
    Returns:
        bytes, longer by the vocabulary's size.
    Raises:
        ValueError: if the file is damaged, or is not that of this model's vocabulary and labels.
    """
    runner, vocab, labels = Runner(content), task_model.tokenizer.vocab, task_model.labels
    if (runner.vocab_size, runner.output_shape) != (len(vocab), (len(labels),)):
        raise ValueError(
            f"The file must be exported from this model, with {len(vocab)} pieces and {len(labels)} "
            f"labels. Received: {runner.vocab_size} and outputs of shape {runner.output_shape}."
        )

    def add(model):
        from ai_edge_litert.schema_py_generated import BufferT, MetadataT

        entry, buffer, graph = MetadataT(), BufferT(), model.subgraphs[0]
        names = {tensor.tensorIndex: NAMES[tensor.name] for tensor in model.signatureDefs[0].inputs}
        metadata = _metadata(task_model.task, description, [names[index] for index in graph.inputs])
        buffer.data = np.frombuffer(metadata, np.uint8)
        model.buffers.append(buffer)
        entry.name, entry.buffer = b"TFLITE_METADATA", len(model.buffers) - 1
        model.metadata = [*(model.metadata or ()), entry]

    # Clients skip empty lines, and the ids after them would move. No word is empty or holds white space: such a piece
    # never matches, and a stand-in keeps its line.
    pieces = [
        f"[piece {i}]" if not piece or re.search(r"\s", piece) else piece
        for i, piece in enumerate(vocab)
    ]
    file = io.BytesIO()
    file.write(edited(content, add))
    with zipfile.ZipFile(
        file, "a"
    ) as archive:  # clients want it uncompressed; a fixed date: the same bytes
        for name, lines in (("vocab.txt", pieces), ("labels.txt", labels)):
            archive.writestr(zipfile.ZipInfo(name), "\n".join(lines) + "\n")
    return file.getvalue()


def _metadata(name, description, input_names):
    """The flatbuffer ModelMetadata: tables as tuples of their fields, in the order of the schema."""
    import flatbuffers

    inputs = [(name, None, None, FEATURE) for name in input_names]
    outputs = [("probabilities", None, None, FEATURE, None, None, [("labels.txt", None, LABELS)])]
    tokenizer = (BERT_TOKENIZER, ([("vocab.txt", None, VOCABULARY)],))
    subgraph = (None, None, inputs, outputs, None, [tokenizer])
    builder = flatbuffers.Builder()
    model = (f"keras_compress {name}", description, None, [subgraph], None, None, None, "1.1.0")
    builder.Finish(_write(builder, model), b"M001")
    return bytes(builder.Output())


def _write(builder, value):
    """Writes a str, a list of tables, or a table: a tuple of these, of small integers, of None for what is left out.
    Returns its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    inner = [
        field if field is None or isinstance(field, int) else _write(builder, field)
        for field in value
    ]
    if isinstance(value, list):
        builder.StartVector(4, len(inner), 4)
        for offset in reversed(inner):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    builder.StartObject(len(value))
    for slot, (field, written) in enumerate(zip(value, inner)):
        if isinstance(field, int):
            builder.PrependInt8Slot(slot, field, 0)
        elif field is not None:
            builder.PrependUOffsetTRelativeSlot(slot, written, 0)
    return builder.EndObject()
