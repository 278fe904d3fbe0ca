"""What an app must know of an exported model: model.json, vocab.txt and labels.txt beside the files; parity.json on request.

model.json tells how a text becomes inputs and an output becomes an answer, and lists the files with SHA-256 and parity.
All of it but the list is in each .tflite file, too (metadata.py). parity.json holds texts with the inputs and outputs that
an app must come to. README.md, "The contract", tells what each key means. Both are sealed (`files.write_sealed`).
"""

import copy
import hashlib
import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np

from keras_compress.bert.tasks import TASKS, encoding
from keras_compress.bert.tokenizer_kinds import BERT_PIECES, SPECIAL_PIECES
from keras_compress.files import atomic_write, read_json, sealed_beside, sha256_of, write_sealed
from mobile_export.litert import INPUT_NAMES, OUTPUT_NAME, signature_of
from mobile_export.ort import open_model

log = logging.getLogger(__name__)
VERSION = 1
MODEL, VECTORS, VOCABULARY, LABELS = "model.json", "parity.json", "vocab.txt", "labels.txt"
KIND = "keras_compress_model"  # the first key of model.json, and of the JSON in a .tflite file
MAX_CHARACTERS = 100  # of a word, beyond which it is unknown
SWITCHES = ("lowercase", "strip_accents", "split_chinese", "truncation_side")
PARITY = (
    "compared_on num_examples agreement max_dp mean_dp max_dlogit metric accuracy accuracy_keras drift"
).split()
NUM_VECTORS = 50
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
    whole = [{"content": x, "normalized": False, "special": True} for x in special]
    usual = {"single_word": False, "normalized": True, "special": False}
    by_character = any(entry.get("words") == "characters" for entry in task_model.history)
    words = "characters" if by_character else "blanks"  # as `words_of` reads the history
    accents, threshold = tokenizer.strip_accents, task_model.threshold
    return {
        KIND: VERSION,
        "task": task_model.task,
        "texts": task.texts,
        "answer": task.answer,
        "per_token": task.per_token,
        "num_labels": len(task_model.labels),
        "threshold": threshold if task.answer == "sigmoid" else None,
        "words": words if task.texts == "words" else None,
        "inputs": dict(zip(("ids", "mask", "type_ids"), INPUT_NAMES)),
        "output": OUTPUT_NAME,
        "tokenizer": {
            **{key: getattr(tokenizer, key) for key in SWITCHES},
            "strip_accents": tokenizer.lowercase if accents is None else accents,
            "max_characters": MAX_CHARACTERS,
            "num_pieces": len(tokenizer.own),
            "special": {
                name: {"piece": piece, "id": tokenizer.ids[piece]}
                for name, piece in zip(("pad", "unknown", "cls", "sep"), SPECIAL_PIECES)
            },
            "never_split": [
                {**usual, **word, "id": tokenizer.ids[word["content"]]}
                for word in (*whole, *tokenizer.added)
            ],
        },
    }


def check_folder(folder, task_model):
    """Raises ValueError if what stands in a folder keeps the files of this model's contract from being written there."""
    told = _told(folder)
    seal = sealed_beside(folder / MODEL) if told else {}
    for name, content in _beside(task_model).items():
        path = folder / name
        others = path.is_file() and _differs(path, content)
        if others and (not told or (folder / "config.json").is_file()):
            raise ValueError(
                f"Exported files come with a {name} of their model. Received: {folder}, whose {name} is another one's. "
                "Move it away, or choose another folder."
            )
        if others and seal.get(name, digest := sha256_of(path)) != digest:
            raise ValueError(
                f"{path}: only what `export` wrote is replaced. Received: another content than {MODEL} tells of, so it "
                "was damaged, or edited. Move it away, or delete it, and it is written anew."
            )


def weights_sha256(task_model):
    """SHA-256 of a model's weights, by their names: files of a model trained anew come from others."""
    from keras_compress.bert.task_model import (
        variables_of,
    )  # who only reads does without TensorFlow

    digest = hashlib.sha256()
    for name, variable in sorted(variables_of(task_model.whole).items()):  # no copy of all at once
        digest.update(f"{name} {tuple(variable.shape)}\n".encode())
        digest.update(np.ascontiguousarray(variable))
    return digest.hexdigest()


def check_same(folder, task_model, overwrite=False):
    """Raises ValueError if a model's files would take from what is in a folder: another program's parity.json, or, unless
    `overwrite`, another model's files.
    """
    folder = Path(folder)
    told = _told(folder) or {}
    rows, contents = told.pop("files", ()), _beside(task_model)
    source, others = weights_sha256(task_model), _others(folder, told, task_model, contents)
    rows = [row["path"] for row in rows if others or row.get("weights") != source]
    lost = [] if overwrite else rows
    way = "pass `--overwrite`" if lost else "move that away"
    if (folder / VECTORS).is_file() and not is_ours(folder / VECTORS):
        lost += [VECTORS]
    if lost:
        raise ValueError(
            f"A folder of exported files is one model's. Received: {folder}, whose {', '.join(lost)} would be lost or "
            f"no longer told about. Choose another folder, or {way}."
        )


def add_file(task_model, facts):
    """Writes vocab.txt and labels.txt beside a file, and its row into model.json, where those of the same weights stay.

    Args:
        facts: of `convert.export`.
    """
    path, longest, about = Path(facts["path"]), facts["sequence_length"], describe(task_model)
    folder, contents = path.parent, _beside(task_model)
    told = _told(folder) or {}
    names = {each.name for each in folder.iterdir()} - {path.name}
    rows = [row for row in told.pop("files", ()) if row["path"] in names]
    changed = [name for name in contents if _differs(folder / name, contents[name])]
    source, others = weights_sha256(task_model), _others(folder, told, task_model, contents)
    for row in [row for row in rows if others or row.get("weights") != source]:
        form = "warning: %s: no longer tells about %s, of another model. Export it again (`--formats %s`), or remove it"
        log.warning(form, folder / MODEL, row["path"], row["format"])
        rows.remove(row)
    if changed:  # a kill in between must not leave a seal that keeps the next call away
        write_sealed(folder / MODEL, {**about, "files": []})
    for name in changed:
        with atomic_write(folder / name, "wb") as file:
            file.write(contents[name])
    row = {"path": path.name, "sha256": sha256_of(path), "weights": source}
    row |= {key: facts[key] for key in ("format", "bytes", "partitions", "cls_only")}
    row["signatures"] = [
        {"name": signature_of(x, longest), "length": x, **{key: figures[key] for key in PARITY}}
        for x, figures in facts.get("lengths", {longest: facts}).items()
    ]
    if facts.get("timed"):
        row["timed"] = facts["timed"]
    rows = sorted([*rows, row], key=lambda row: row["path"])
    write_sealed(folder / MODEL, {**about, "files": rows}, [folder / name for name in contents])


def _others(folder, told, task_model, contents):
    """Whether model.json tells of a model with another description, vocabulary or labels."""
    seal = sealed_beside(folder / MODEL) if told else {}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return told != describe(task_model) or any(seal.get(name) != digests[name] for name in digests)


def _differs(path, content):
    return not path.is_file() or path.read_bytes() != content


def _beside(task_model):
    """{name: content} of the files beside model.json, as `TaskModel.save` writes them."""
    with tempfile.TemporaryDirectory() as place:
        task_model.tokenizer.save(vocabulary := Path(place, VOCABULARY))
        labels = "".join(f"{label}\n" for label in task_model.labels)
        return {VOCABULARY: vocabulary.read_bytes(), LABELS: labels.encode()}


def _told(folder):
    """What model.json of a folder to write holds, None if there is none; what stands beside it may be damaged."""
    return read_model(folder, beside=False) if (folder / MODEL).is_file() else None


def read_model(folder, beside=True):
    """What model.json of a folder holds. ValueError if it, or a file `beside`, is damaged or edited, or another program's."""
    path = Path(folder) / MODEL
    if not path.is_file():
        raise ValueError(
            f"An exported file must stand beside its {MODEL}. Received: {folder}, which has none. Name a file, not "
            "its folder. Copy the whole folder, or export the model again."
        )
    value = read_json(path, beside)
    if value.get(KIND) != VERSION:
        raise ValueError(
            f"{path}: `{KIND}` must be {VERSION}. Received: {value.get(KIND)!r}. Move it away, or choose another folder."
        )
    return value


def is_ours(path):
    """Whether a path leads to a model.json or parity.json that this file wrote: not another program's of the same name."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(99).lstrip(b"{ \n").startswith(b'"keras_compress_')


def write_vectors(folder, task_model, dev=None):
    """Writes parity.json: texts, the inputs that they become, and the outputs of all files of model.json.

    Args:
        folder: of exported files. task_model: the `TaskModel` that they come from.
        dev: `Split` whose first texts are taken beside the tricky ones; None: words of the vocabulary.
    Returns:
        the path of parity.json.
    """
    folder, texts = Path(folder), _texts(task_model, dev)
    encode = encoding(task_model.task, copy.copy(task_model.tokenizer))  # which warns once
    inputs, files = {}, {}
    for row in read_model(folder)["files"]:
        runner = open_model(folder / row["path"])
        length = runner.sequence_length
        with warnings.catch_warnings(action="ignore"):  # tricky texts have unknown words
            encodings = encode(texts, length)
        inputs.setdefault(length, [*map(_row, encodings)])
        outputs = runner.forward(encodings)
        largest = max(1.0, *(np.abs(each).max() for each in outputs))  # numbers may be large
        files[row["path"]] = {
            "sha256": row["sha256"],
            "max_length": length,
            "tolerance": (1e-5 if "float" in row["format"] else 2e-2) * float(largest),
            "outputs": [np.round(each.astype(float), 7).tolist() for each in outputs],
        }
    value = {"keras_compress_vectors": VERSION, "texts": texts, "inputs": inputs, "files": files}
    write_sealed(folder / VECTORS, value, indent=None)
    return folder / VECTORS


def _row(encoding):
    """An `Encoding` as JSON holds it."""
    mask = [1] * len(encoding.ids)
    row = {"ids": encoding.ids, "mask": mask, "type_ids": encoding.type_ids}
    return row if encoding.word_starts is None else {**row, "word_starts": encoding.word_starts}


def _texts(task_model, dev):
    """The tricky texts, or pairs of them, and as many more as make NUM_VECTORS."""
    from keras_compress.bert.tokenizer import clean  # who only reads may lack `tokenizers`

    first, more = TRICKY, dev.texts[: NUM_VECTORS - len(TRICKY)] if dev else ()
    in_pairs = TASKS[task_model.task].texts == "pair" or (dev and not isinstance(more[0], str))
    if not dev:
        random = np.random.default_rng(0)
        words = [piece for piece in task_model.tokenizer.vocab if piece[:1] not in "#["]
        counts = random.integers(1, 16, NUM_VECTORS - len(TRICKY))
        first += tuple(" ".join(random.choice(words, count)) for count in counts)
    if in_pairs:
        return [[*map(clean, pair)] for pair in (*zip(first, (*first[1:], first[0])), *more)]
    return [*map(clean, (*first, *more))]
