"""A Hugging Face folder: config.json, model.safetensors (or its shards), tokenizer.json or vocab.txt."""

from pathlib import Path

from keras_compress.bert.checkpoints.names import rows, variables
from keras_compress.bert.checkpoints.published import published, read_config
from keras_compress.bert.task_model import read_safetensors
from keras_compress.files import one_of, read_json

_HEADS = {
    "BertForSequenceClassification": "classification",
    "BertForTokenClassification": "tagging",
}
_VARIABLES = {  # PyTorch's names, and TensorFlow's in old files
    "weight": ("kernel", "gamma", "embeddings"),
    "bias": ("bias", "beta"),
    "gamma": ("gamma",),
    "beta": ("beta",),
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
    tensors, left_out = rename(_read_shards(folder), config.num_layers)
    names = values.get("architectures") or ()
    task, labels = next((_HEADS[name] for name in names if name in _HEADS), None), None
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
    if not isinstance(names, dict):
        raise ValueError(
            f"{path}: `id2label` must be an object of numbers and names. Received: {names!r:.60}."
        )
    return tuple(str(names.get(str(k), f"LABEL_{k}")) for k in range(count))


def _read_shards(folder):
    if (folder / "model.safetensors").is_file():
        return read_safetensors(folder / "model.safetensors")
    shards = set(read_json(folder / "model.safetensors.index.json").get("weight_map", {}).values())
    tensors = {}
    for shard in sorted(shards):
        tensors |= read_safetensors(one_of(folder, Path(shard).name))
    return tensors


def rename(tensors, num_layers):
    """Hugging Face's names and orientation to this package's.

    Returns:
        ({name: array}, [names left out]). PyTorch keeps dense kernels as (out, in); Keras as (in, out).
    """
    layers = {theirs: layer for layer, theirs, _ in rows(num_layers)}
    renamed, left_out = {}, []
    for name, array in tensors.items():
        part, _, kind = name.removeprefix("bert.").rpartition(".")
        layer = layers.get(part, "")
        known = [v for v in variables(layer) if v in _VARIABLES.get(kind, ())]
        if layer and known:
            renamed[f"{layer}/{known[0]}"] = array.T if known == ["kernel"] else array
        else:
            left_out.append(name)
    return renamed, left_out
