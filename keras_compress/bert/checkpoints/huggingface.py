"""A Hugging Face folder: config.json, model.safetensors (or its shards), tokenizer.json or vocab.txt."""

from pathlib import Path

from keras_compress.bert.checkpoints.names import rename
from keras_compress.bert.checkpoints.published import published, read_config
from keras_compress.bert.task_model import read_safetensors
from keras_compress.bert.tasks import SCORE
from keras_compress.files import one_of, read_json

_HEADS = {
    "BertForSequenceClassification": "classification",
    "BertForTokenClassification": "tagging",
}


def recognises(source):
    names = ("model.safetensors", "model.safetensors.index.json")
    return any((Path(source) / name).is_file() for name in names)


def read(source, num_labels=0):
    """Reads the encoder and, if the model is a sequence or token classifier, its head and labels.

    Args:
        num_labels: None: the classifier will be left out, so it may be of any kind.
    """
    folder = Path(source)
    path, config, values = read_config(folder, "config.json")
    names = values.get("architectures") or ()
    heads = [_HEADS[name] for name in names if name in _HEADS]
    task, labels = heads[0] if heads else None, None
    # Heads that choose no label; names may begin with "module.".
    others = () if task else [(r"(^|\.)classifier\.", r"\1another_classifier.")]
    stored = _read_shards(folder)
    has_head = any(f".{name}".endswith(".classifier.weight") for name in stored)
    if not names and has_head and num_labels is not None:
        raise ValueError(
            f"{path}: `architectures` must tell what the classifier chooses. Received: none. Write "
            f"{' or '.join(map(repr, _HEADS))} there, or load the encoder alone: `new_head` (`--new-head`)."
        )
    tensors, left_out = rename(stored, config.num_layers, stored.get, others)
    if task and num_labels is not None and "classifier/kernel" in tensors:
        count = tensors["classifier/kernel"].shape[-1]
        task, labels = _answer(path, values, task, count)
    return published(config, folder, tensors, left_out, task, labels, special_in_text=True)


def _answer(path, values, task, count):
    """(task, labels) of a classifier; one output of a text is a score, whatever `problem_type` says, as in their code."""
    problem, names = values.get("problem_type"), values.get("id2label") or {}
    of_texts = {"regression": "regression", "multi_label_classification": "multilabel"}
    known = {"single_label_classification": task, **(of_texts if task == "classification" else {})}
    task = known.get(problem or ("regression" if count == 1 else "single_label_classification"))
    if not task or (task == "regression") != (count == 1):
        raise ValueError(
            f"{path}: the classifier must give two or more labels, or one score. Received: {count} outputs "
            f"and `problem_type` = {problem!r}. Load the encoder alone: `new_head` (`--new-head`)."
        )
    if count == 1:
        return task, SCORE
    return task, tuple(str(names.get(str(k), f"LABEL_{k}")) for k in range(count))


def _read_shards(folder):
    if (folder / "model.safetensors").is_file():
        return read_safetensors(folder / "model.safetensors")
    shards, tensors = read_json(folder / "model.safetensors.index.json").get("weight_map", {}), {}
    for shard in {*shards.values()}:
        tensors |= read_safetensors(one_of(folder, Path(shard).name))
    return tensors
