"""What an app must know of an exported model: model.json, vocab.txt and labels.txt beside the files; parity.json on request.

model.json tells how a text becomes inputs and an output becomes an answer, and lists the files with SHA-256 and parity.
All of it but the list is in each .tflite file, too (metadata.py). parity.json holds texts with the inputs and outputs that
an app must come to. README.md, "The contract", tells what each key means. Both are sealed (`files.write_sealed`).
"""

import json
import logging
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from keras_compress.bert.tasks import TASKS, encoding
from keras_compress.bert.tokenizer import clean
from keras_compress.bert.tokenizer_kinds import BERT_PIECES, SPECIAL_PIECES
from keras_compress.files import atomic_write, read_json, sha256_of, write_sealed
from mobile_export.litert import INPUT_NAMES, OUTPUT_NAME, SIGNATURE
from mobile_export.ort import open_model

log = logging.getLogger(__name__)
VERSION = 1
MODEL, VECTORS, VOCABULARY, LABELS = "model.json", "parity.json", "vocab.txt", "labels.txt"
KIND, VECTORS_KIND = (
    "keras_compress_model",
    "keras_compress_vectors",
)  # the first key of model.json, and of the JSON in a .tflite file
MAX_CHARACTERS = 100  # of a word, beyond which it is unknown
PARITY = (
    "compared_on num_examples agreement max_dp mean_dp max_dlogit metric accuracy accuracy_keras drift"
).split()
NUM_VECTORS = 50
FLOATS = ("float32", "float16")
# Where tokenizers differ: case, accents, white space, control characters, scripts, length.
TRICKY = (
    "",
    "Turn on the LIGHTS, please!",
    "café naïve CAFÉ İstanbul cafe\u0301",
    "我想听音乐，明天天气怎么样？",
    "中文mixed英文123",
    "don't (stop) - “quoted”, $5.99 + 10% = ~#@ x_y",
    "tabs\tand\r\nlines\u00a0no\u3000break\u2028separator",
    "zero\u200bwidth soft\u00adhyphen \ufeffmark bell\x07 nul\0inside \ufffd",
    "😀 👍🏽 👩\u200d👧 emoji 🎵",
    "１２３ ｆｕｌｌ ﬁne ½ ②",
    "[CLS] [SEP] [MASK] [UNK] ##ing",
    "ひらがな カタカナ 안녕하세요 ПРИВЕТ नमस्ते שלום مرحبا",
    "x" * 100 + " " + "x" * 101,
    "lights 灯 " * 300,
)


def describe(task_model):
    """How a text becomes inputs and an output an answer, as a dict: model.json without the list of files."""
    task, tokenizer = TASKS[task_model.task], task_model.tokenizer
    special = [x for x in BERT_PIECES if tokenizer.special_in_text and x in tokenizer.ids]
    whole = [
        {"content": x, "single_word": False, "normalized": False, "special": True} for x in special
    ]
    whole += [
        {"single_word": False, "normalized": True, **x, "special": False} for x in tokenizer.added
    ]
    accents, threshold = tokenizer.strip_accents, task_model.threshold
    return {
        KIND: VERSION,
        "task": task_model.task,
        "texts": task.texts,
        "answer": task.answer,
        "per_token": task.per_token,
        "num_labels": len(task_model.labels),
        "threshold": threshold if task.answer == "sigmoid" else None,
        "words": _words(task_model) if task.texts == "words" else None,
        "inputs": dict(zip(("ids", "mask", "type_ids"), INPUT_NAMES)),
        "output": OUTPUT_NAME,
        "tokenizer": {
            "lowercase": tokenizer.lowercase,
            "strip_accents": tokenizer.lowercase if accents is None else accents,
            "split_chinese": tokenizer.split_chinese,
            "truncation_side": tokenizer.truncation_side,
            "max_characters": MAX_CHARACTERS,
            "num_pieces": len(tokenizer.own),
            "special": {
                name: {"piece": piece, "id": tokenizer.ids[piece]}
                for name, piece in zip(("pad", "unknown", "cls", "sep"), SPECIAL_PIECES)
            },
            "never_split": [{**word, "id": tokenizer.ids[word["content"]]} for word in whole],
        },
    }


def _words(task_model):
    by_character = any(entry.get("words") == "characters" for entry in task_model.history)
    return "characters" if by_character else "blanks"  # as words.py reads the history


def check_folder(folder, task_model):
    """Raises ValueError if what stands in a folder keeps the files of this model's contract from being written there."""
    told = read_model(folder) if (folder / MODEL).is_file() else None
    for name, content in _beside(task_model).items():
        differs = (folder / name).is_file() and (folder / name).read_bytes() != content
        if differs and (not told or (folder / "config.json").is_file()):
            raise ValueError(
                f"Exported files come with a {name} of their model. Received: {folder}, whose {name} is another one's. "
                "Choose another folder."
            )


def add_file(task_model, facts):
    """Writes vocab.txt and labels.txt beside a file, and its row into model.json, where those of the same model stay.

    Args:
        facts: of `convert.export`.
    """
    contents, path = _beside(task_model), Path(facts["path"])
    folder = path.parent
    signature = {"name": SIGNATURE, "length": facts["sequence_length"]}
    signatures = [signature | {key: facts[key] for key in PARITY}]
    same = all(
        (folder / n).is_file() and (folder / n).read_bytes() == x for n, x in contents.items()
    )
    told = read_model(folder) if (folder / MODEL).is_file() else {}
    rows, about = told.pop("files", []), json.loads(json.dumps(describe(task_model)))
    others = [row for row in rows if row["path"] != path.name and (folder / row["path"]).is_file()]
    if others and not (same and told == about):
        names = ", ".join(row["path"] for row in others)
        log.warning(
            "warning: %s: no longer tells about %s, of another model", folder / MODEL, names
        )
        others = []
    for name, content in contents.items() if not same else ():
        with atomic_write(folder / name, "wb") as file:
            file.write(content)
    row = {
        "path": path.name,
        "format": facts["format"],
        "bytes": facts["bytes"],
        "sha256": sha256_of(path),
        "partitions": facts["partitions"],
        "cls_only": facts["cls_only"],
        "signatures": signatures,
    }
    rows = sorted([*others, row], key=lambda row: row["path"])
    write_sealed(folder / MODEL, {**about, "files": rows}, [folder / name for name in contents])


def _beside(task_model):
    """{name: content} of the files beside model.json, as `TaskModel.save` writes them."""
    with tempfile.TemporaryDirectory() as place:
        task_model.tokenizer.save(vocabulary := Path(place, VOCABULARY))
        labels = "".join(f"{label}\n" for label in task_model.labels)
        return {VOCABULARY: vocabulary.read_bytes(), LABELS: labels.encode()}


def read_model(folder):
    """What model.json of a folder holds. ValueError if it is damaged, edited, or another program's."""
    path = Path(folder) / MODEL
    if not path.is_file():
        raise ValueError(
            f"An exported file must stand beside its {MODEL}. Received: {folder}, which has none. Copy the "
            "whole folder, or export the model again."
        )
    value = read_json(path, beside=True)
    if value.get(KIND) != VERSION:
        raise ValueError(
            f"{path}: `{KIND}` must be {VERSION}. Received: {value.get(KIND)!r}. Move it away, or choose another folder."
        )
    return value


def write_vectors(folder, task_model, dev=None):
    """Writes parity.json: texts, the inputs that they become, and the outputs of all files of model.json.

    Args:
        folder: of exported files. task_model: the `TaskModel` that they come from.
        dev: `Split` whose first texts are taken beside the tricky ones; None: words of the vocabulary.
    Returns:
        the path of parity.json.
    """
    folder, texts = Path(folder), _texts(task_model, dev)
    encode = encoding(task_model.task, task_model.tokenizer)
    inputs, files = {}, {}
    for row in read_model(folder)["files"]:
        runner = open_model(folder / row["path"])
        length = runner.sequence_length
        encodings = encode(texts, length)
        inputs.setdefault(length, [*map(_row, encodings)])
        outputs = runner.forward(encodings)
        largest = max(1.0, *(np.abs(each).max() for each in outputs))  # numbers may be large
        files[row["path"]] = {
            "sha256": row["sha256"],
            "max_length": length,
            "tolerance": (1e-5 if row["format"].endswith(FLOATS) else 2e-2) * float(largest),
            "outputs": [np.round(each.astype(float), 7).tolist() for each in outputs],
        }
    value = {VECTORS_KIND: VERSION, "texts": texts, "inputs": inputs, "files": files}
    write_sealed(folder / VECTORS, value, indent=None)
    return folder / VECTORS


def _row(encoding):
    """An `Encoding` as JSON holds it."""
    mask = [1] * len(encoding.ids)
    row = {"ids": encoding.ids, "mask": mask, "type_ids": encoding.type_ids}
    return row if encoding.word_starts is None else {**row, "word_starts": encoding.word_starts}


def _texts(task_model, dev):
    """The tricky texts, or pairs of them, and as many more as make NUM_VECTORS."""
    number, texts = NUM_VECTORS - len(TRICKY), dev.texts[: NUM_VECTORS - len(TRICKY)] if dev else ()
    if not dev:
        random = np.random.default_rng(0)
        words = [x for x in task_model.tokenizer.vocab if x[:1] not in "#["]
        counts = random.integers(1, 16, 2 * number)
        texts = [" ".join(random.choice(words, count)) for count in counts]
    kind = TASKS[task_model.task].texts
    if kind == "pair" and not dev:
        texts = [*zip(texts[::2], texts[1::2])]
    in_pairs = kind == "pair" or bool(dev) and not isinstance(texts[0], str)
    tricky = [*zip(TRICKY, (*TRICKY[1:], TRICKY[0]))] if in_pairs else TRICKY
    texts = [*tricky, *texts[:number]]
    return [[*map(clean, text)] if in_pairs else clean(text) for text in texts]


def vectors_of(path):
    """(encodings, outputs, tolerance) of an exported file, as parity.json beside it has them; None without one.

    Raises ValueError if they are those of another file.
    """
    path = Path(path)
    if not (path.parent / VECTORS).is_file():
        return None
    told = read_json(path.parent / VECTORS)
    row = told.get("files", {}).get(path.name, {})
    if told.get(VECTORS_KIND) != VERSION or row.get("sha256") != sha256_of(path):
        raise ValueError(
            f"{path.parent / VECTORS}: must hold the outputs of {path.name} as it is. Received: those of other files. "
            "Export them again with `--vectors`, or move it away."
        )
    encodings = [SimpleNamespace(**each) for each in told["inputs"][str(row["max_length"])]]
    return encodings, [*map(np.float32, row["outputs"])], row["tolerance"]
