"""TFLite metadata: how to use it, vocabulary, labels and a description in the .tflite file.

Each file has an entry `keras_compress_model`: one line of JSON, with all that model.json has but its list of files
(contract.py). With the others, MediaPipe's TextClassifier (Python, Android, iOS, web) needs that file alone to go from text
to label. `vocab.txt` and `labels.txt` stand in a zip archive behind the model. What they are for stands
in a second flatbuffer, TFLITE_METADATA, which the first one holds (metadata_schema.fbs 1.1.0 of
TensorFlow and MediaPipe). It is small enough to be written here: the schema's classes come with
MediaPipe alone, which need not be installed to export.

MediaPipe 1.2.2 splits and looks up words as BERT does. But it lower-cases ASCII alone, keeps accents,
control and format characters, splits at ASCII white space alone, and stops at NUL. So it reads 19 of
the 39 tricky strings of tests/mobile_export/test_mediapipe.py otherwise than this package, and none
after `mediapipe_compatible`. Three differences stay:
    Of 145,731 characters put between two letters, the `tokenizers` library takes 362 for letters and
    MediaPipe does not, or the reverse: 256 rare ideographs (U+2B820 to U+2B91F), and punctuation of
    newer Unicode.
    A special piece that a user writes, such as [SEP], is five characters to MediaPipe.
    Words of over 100 bytes but at most 100 characters: MediaPipe counts bytes and BERT characters.
Plain English and Chinese commands: 500 of 500 alike.
"""

import io
import json
import re
import zipfile

import flatbuffers
from tokenizers.normalizers import BertNormalizer

from keras_compress.bert.tokenizer import clean
from mobile_export.contract import KIND, describe
from mobile_export.flatbuffer import add_metadata, edited
from mobile_export.stamp import stamped

MEDIAPIPE_NAMES = {
    b"input_word_ids": "ids",
    b"input_mask": "mask",
    b"input_type_ids": "segment_ids",
}
FEATURE = (1, ())  # ContentProperties: a union's type, then its table
LABELS, VOCABULARY = 2, 5  # AssociatedFileType
BERT_TOKENIZER = 4  # ProcessUnitOptions


def no_metadata(task_model, num_lengths=1):
    """Why no metadata for MediaPipe can be written for a model; None if they can."""
    client = "MediaPipe's TextClassifier"
    if task_model.task != "classification":
        return f"{client} gives one text one label, which {task_model.task} is not"
    if task_model.config.architecture == "bilstm":
        return f"{client} takes a single graph, and a {task_model.config.architecture} has loops"
    if num_lengths > 1:
        return f"{client} takes a single graph, and there is one for each of the lengths"
    tokenizer = task_model.tokenizer
    if not tokenizer.lowercase:
        return f"{client} lower-cases every text, which the model's vocabulary does not expect"
    if tokenizer.strip_accents is False:
        return f"{client} needs texts without accents, which the model's vocabulary has"
    if not tokenizer.split_chinese:
        return f"{client} splits Chinese characters, which the model's tokenizer keeps together"
    if tokenizer.truncation_side != "right":
        return f"{client} cuts off the end of a long text, and the model's tokenizer its beginning"
    if tokenizer.added:
        words = ", ".join(word["content"] for word in tokenizer.added[:3])
        return f"{client} does not find added words, and the model's tokenizer has {words}"
    return None


def mediapipe_compatible(text):
    """A text as BERT's own normaliser leaves it: give this to MediaPipe's TextClassifier instead.

    In other languages: drop control, format and private-use characters, turn any white space into a
    space, decompose (NFD) and drop the accents (Mn), lower-case.

    Args:
        text: str, any.
    Returns:
        str, which UTF-8 can hold and which has no NUL, where MediaPipe would stop to read.
    """
    return BertNormalizer(lowercase=True).normalize_str(clean(text))


def with_metadata(content, task_model, description=None):
    """An exported file with `contract.describe` as JSON and, with a description, the metadata of MediaPipe's
    TextClassifier; the model in it stays as it is.

    Args:
        content: bytes of a .tflite file that was exported from `task_model`.
        description: str, for whoever opens the file; `no_metadata` must be None.
    Returns:
        bytes, longer by the vocabulary's size.
    """

    def add(model):
        runs = (
            (model.subgraphs[x.subgraphIndex], x.inputs[0].tensorIndex) for x in model.signatureDefs
        )
        lengths = sorted(int(graph.tensors[place].shape[-1]) for graph, place in runs)
        about = {**describe(task_model), "lengths": lengths}
        add_metadata(model, KIND.encode(), f"{json.dumps(about)}\n".encode())
        if description is None:
            return
        names = {t.tensorIndex: MEDIAPIPE_NAMES[t.name] for t in model.signatureDefs[0].inputs}
        inputs = [(names[i], None, None, FEATURE) for i in model.subgraphs[0].inputs]
        labels = ("labels.txt", None, LABELS)
        outputs = [("probabilities", None, None, FEATURE, None, None, [labels])]
        tokenizer = (BERT_TOKENIZER, ([("vocab.txt", None, VOCABULARY)],))
        subgraph = (None, None, inputs, outputs, None, [tokenizer])
        title = f"keras_compress {task_model.task}"
        builder = flatbuffers.Builder()
        table = (title, description, None, [subgraph], None, None, None, "1.1.0")
        builder.Finish(_write(builder, table), b"M001")
        add_metadata(model, b"TFLITE_METADATA", builder.Output())

    content = edited(content, add)
    if description is None:
        return content
    # Clients skip empty lines, and the ids after them would move. No word is empty or holds white
    # space: such a piece never matches, and a stand-in keeps its line.
    pieces = [
        piece if re.fullmatch(r"\S+", piece) else f"[piece {i}]"
        for i, piece in enumerate(task_model.tokenizer.vocab)
    ]
    file = io.BytesIO()
    file.write(content)
    # Clients want the files uncompressed. A fixed date gives the same bytes each time.
    with zipfile.ZipFile(file, "a") as archive:
        for name, lines in (("vocab.txt", pieces), ("labels.txt", task_model.labels)):
            archive.writestr(zipfile.ZipInfo(name), "\n".join(lines) + "\n")
    return stamped(file.getvalue())


def _write(builder, value):
    """Writes a value of the metadata's schema and returns its offset.

    Args:
        value: str, list of tables, or table: a tuple of its fields in the order of the schema. Fields
            are values, small integers, or None for what is left out.
    """
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str):
        return builder.CreateString(value)
    fields = [_write(builder, field) for field in value]
    if isinstance(value, list):
        builder.StartVector(4, len(fields), 4)
        for offset in reversed(fields):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    builder.StartObject(len(fields))
    for slot, field in enumerate(fields):
        if isinstance(value[slot], int):
            builder.PrependInt8Slot(slot, field, 0)
        elif field is not None:
            builder.PrependUOffsetTRelativeSlot(slot, field, 0)
    return builder.EndObject()
