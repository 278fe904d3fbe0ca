"""A Hugging Face folder: config.json, model.safetensors or pytorch_model.bin (or their shards), tokenizer.json or
vocab.txt. Where both kinds of weights are there, those of safetensors are read.

The model is a BERT or one of its relatives (relatives.py).
"""

import logging
from pathlib import Path

import numpy as np

from keras_compress.bert.checkpoints.names import matches, rename
from keras_compress.bert.checkpoints.published import published, read_config
from keras_compress.bert.checkpoints.relatives import RELATIVES, model_type
from keras_compress.bert.checkpoints.torch_pickle import read_torch
from keras_compress.bert.tasks import SCORE
from keras_compress.files import one_of, read_json, read_safetensors

log = logging.getLogger(__name__)
_DECODERS = ("*predictions.decoder.weight", "*vocab_projector.weight", "*generator_lm_head.weight")
_WEIGHTS = {"model.safetensors": read_safetensors, "pytorch_model.bin": read_torch}


def recognises(source):
    names = [name + ending for name in _WEIGHTS for ending in ("", ".index.json")]
    return any((Path(source) / name).is_file() for name in names)


def read(source, num_labels=0, above=None):
    """Reads the encoder and, if the model is a sequence or token classifier, its head and labels.

    Args:
        num_labels: None: the classifier will be left out, so it may be of any kind.
        above: the sentence-transformers folder that this one lies in, if it lies in one.
    """
    folder = Path(source)
    path, config, values = read_config(folder, "config.json")
    if (folder / "adapter_config.json").is_file():
        about = "%s: the adapter beside the weights is not read: right if it was merged into them, else merge it in `peft`"
        log.warning(about, folder)
    kind, names = RELATIVES[model_type(values)], values.get("architectures") or ()
    names = [names] if isinstance(names, str) else names
    heads = [kind.heads[name] for name in names if name in kind.heads]
    task, labels, sigmoid = heads[0] if heads else None, None, False
    stored, renamings = _read_shards(folder), kind.renamings
    if config.activation != "gelu":
        # An ELECTRA's masked-LM head has GELU, whatever its layers have.
        renamings = [pair for pair in renamings if "generator_predictions" not in pair[0]]
    tensors, left_out = rename(stored, config, stored.get, renamings)
    if not task and "classifier/kernel" in tensors:
        if not names and num_labels is not None:
            raise ValueError(
                f"{path}: `architectures` must tell what the classifier chooses. Received: none. Write "
                f"{' or '.join(map(repr, kind.heads))} there, or load the encoder alone: `new_head` (`--new-head`)."
            )
        if num_labels is not None:
            about = "%s: the classifier of %s is not known. If it is one dense layer, write %s there, and `problem_type`"
            log.warning(about, path, ", ".join(names), " or ".join(kind.heads))
        # A head that chooses no label; names may begin with "module.".
        renamings += [(r"(^|\.)classifier\.", r"\1another_classifier.")]
        tensors, left_out = rename(stored, config, stored.get, renamings)
    for name in left_out:
        if matches(name, _DECODERS) and "word_embeddings/embeddings" in tensors:
            table = tensors["word_embeddings/embeddings"]
            if not np.array_equal(stored.get(name), table):
                about = "%s: %s is not the word table, which a masked-LM head reads here: its answers will be others"
                log.warning(about, path, name)
    if "embedding_projection/kernel" in tensors and not config.adapter_shapes:
        raise ValueError(
            f"{path}: `embedding_size` must be below `hidden_size`, or there must be no map between them. "
            f"Received: both {config.hidden_size}, and a map. Choose another source."
        )
    if task and num_labels is not None and "classifier/kernel" in tensors:
        count = tensors["classifier/kernel"].shape[-1]
        activation = _activation(above or folder, values)
        task, labels = _answer(path, values, task, count, activation)
        sigmoid = task == "regression" and activation == "Sigmoid"
    checkpoint = published(config, folder, tensors, left_out, task, labels, special_in_text=True)
    # A MobileBERT may do without a pooler. Where another's is missing, nothing tells what the classifier read.
    told = "pooler/kernel" in tensors or values.get("classifier_activation") is False
    return checkpoint._replace(sigmoid=sigmoid, guessed=not told)


def _activation(folder, values):
    """What sentence-transformers compute of a cross-encoder's outputs, such as "Sigmoid"; "" where no file tells."""
    newest = folder / "config_sentence_transformers.json"
    places = read_json(newest) if newest.is_file() else {}, values.get("sentence_transformers")
    told = [place and place.get("activation_fn") for place in places]
    told.append(values.get("sbert_ce_default_activation_function"))
    return next(filter(None, told), "").rpartition(".")[2]


def _answer(path, values, task, count, activation):
    """(task, labels) of a classifier; one output of a text is a score, whatever `problem_type` says, as in their code."""
    problem, names = values.get("problem_type"), values.get("id2label") or {}
    several = "multi_label_classification"
    if count > 1 and activation == "Sigmoid":
        if problem not in (None, several):
            raise ValueError(
                f"{path}: a sigmoid gives each label by itself, so `problem_type` must be {several!r}. Received: "
                f"{problem!r} and the activation of sentence-transformers, {activation}. Correct one of the two."
            )
        problem = several
    if not (problem or activation) and task == "classification":
        way = f"one label a text; `problem_type` = {several!r} there says several"
        about = "a score (regression)" if count == 1 else way
        log.info("%s: without `problem_type`, the %d output(s) are read as %s", path, count, about)
    names = {str(k): name for k, name in enumerate(names)} if isinstance(names, list) else names
    names = _names(path, names, values.get("label2id"))
    of_texts = {"regression": "regression", several: "multilabel"}
    known = {"single_label_classification": task, **(of_texts if task == "classification" else {})}
    task = known.get(problem or ("regression" if count == 1 else "single_label_classification"))
    if not task or (task == "regression") != (count == 1):
        raise ValueError(
            f"{path}: the classifier must give two or more labels, or one score. Received: {count} outputs "
            f"and `problem_type` = {problem!r}. Load the encoder alone: `new_head` (`--new-head`)."
        )
    if count == 1:
        if activation not in ("", "Identity"):
            about = "%s: scores are those before the %s of sentence-transformers"
            pair = "; `--task matching` reads it as one of two labels" * (activation == "Sigmoid")
            log.warning(about + pair, path, activation)
        return task, SCORE
    numbers = [str(k) for k in range(count)]
    if {*numbers} != {*names} and not all(str(x).startswith("LABEL_") for x in names.values()):
        raise ValueError(
            f"{path}: `id2label` must name each output of the classifier, numbered from 0. Received: {count} outputs "
            f"and {names!s:.90}. Correct it, or delete it and pass `labels` (`--labels`) in the model's order."
        )
    return task, tuple(str(names.get(k, f"LABEL_{k}")) for k in numbers)


def _names(path, names, numbers):
    """`id2label`, or what `label2id` says, if that alone has names; a warning where they name outputs differently."""
    inverse = {str(k): x for x, k in numbers.items()} if isinstance(numbers, dict) else {}
    named, also = (
        {k: x for k, x in each.items() if not str(x).startswith("LABEL_")}
        for each in (names, inverse)
    )
    if also and not named:
        log.info("%s: `label2id` names the classes, `id2label` does not", path)
        return inverse
    if any(also.get(k, name) != name for k, name in named.items()):
        about = (
            "%s: `id2label` and `label2id` disagree; the classes are named as `id2label` says: %s"
        )
        log.warning(about, path, ", ".join(map(str, names.values())))
    return names


def _read_shards(folder):
    for name, read in _WEIGHTS.items():
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return read(_fetched(folder / name))
        if index.is_file():
            shards = {Path(shard).name for shard in read_json(index).get("weight_map", {}).values()}
            tensors = {}
            for shard in sorted(shards):
                tensors |= read(_fetched(one_of(folder, shard)))
            return tensors


def _fetched(path):
    """The path of weights, if they are more than what `git clone` leaves without LFS."""
    with open(path, "rb") as file:
        if file.read(20) == b"version https://git-":
            raise ValueError(
                f"{path}: the weights themselves must be there. Received: a pointer of Git LFS. Fetch them: "
                "`git lfs pull` in that folder."
            )
    return path
