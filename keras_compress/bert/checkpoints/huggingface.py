"""A Hugging Face folder: config.json, model.safetensors (or its shards), tokenizer.json or vocab.txt."""

from pathlib import Path

from keras_compress.bert.checkpoints.names import names_here
from keras_compress.bert.checkpoints.published import published, read_config
from keras_compress.bert.task_model import read_safetensors
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
    Returns:
        `Checkpoint`.
    Raises:
        ValueError: if the classifier does not choose one of several labels, or the folder holds no BERT.
    """
    folder = Path(source)
    path, config, values = read_config(folder, "config.json")
    stored = _read_shards(folder)
    here, tensors = names_here(stored, config.num_layers), {}
    left_out = [*stored.keys() - here.keys()]
    for (
        theirs,
        ours,
    ) in here.items():  # PyTorch keeps dense kernels as (out, in); Keras as (in, out)
        tensors[ours] = stored[theirs].T if ours.endswith("/kernel") else stored[theirs]
    known = [_HEADS[name] for name in values.get("architectures") or () if name in _HEADS]
    task, labels = known[0] if known else None, None
    if task is None:  # another head may be called classifier, too
        head = [name for name in tensors if name.startswith("classifier/")]
        left_out += head
        tensors = {name: array for name, array in tensors.items() if name not in head}
    elif num_labels is not None and "classifier/kernel" in tensors:
        labels = _labels(path, values, tensors["classifier/kernel"].shape[-1])
    return published(config, folder, tensors, left_out, task, labels)


def _labels(path, values, count):
    problem, names = values.get("problem_type"), values.get("id2label") or {}
    if count < 2 or problem not in (None, "single_label_classification"):
        raise ValueError(
            f"{path}: the classifier must choose one of two or more labels. Received: {count} outputs "
            f"and `problem_type` = {problem!r}. Load the encoder alone: `new_head` (`--new-head`)."
        )
    return tuple(str(names.get(str(k), f"LABEL_{k}")) for k in range(count))


def _read_shards(folder):
    if (folder / "model.safetensors").is_file():
        return read_safetensors(folder / "model.safetensors")
    shards, tensors = read_json(folder / "model.safetensors.index.json").get("weight_map", {}), {}
    for shard in {*shards.values()}:
        tensors |= read_safetensors(one_of(folder, Path(shard).name))
    return tensors
