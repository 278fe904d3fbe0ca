"""Records what the code gives on tiny models and data, to be compared before and after a change.

    python -m tests.golden.record [weights] [cli] [tables] [--out FOLDER] [--only WORD] [--reverse]

Each case below is one call: method(METHOD)(MODEL, DATA, seed=, training=, **settings, **models).
Left out are MODEL "two", DATA "classification", SEED and what TRAINING says. `then` is a second call:
"finetune" or "fold" of the result, or "soft_targets" from MODEL with the result as student.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from keras_compress.method import methods

SEED = 3
NOISE = 1e-4
TRAINING = {"epochs": 2, "batch_size": 8, "max_length": 16, "learning_rate": 1e-2, "evaluations": 0}

# Models to start from: changes of tests/bert/tiny.py's config (2 layers, width 8); all have a head.
MODELS = {
    "two": {},
    "four": {"num_layers": 4},
    "wide": {"hidden_size": 16, "intermediate_size": 20},
    "tagging": {"task": "tagging"},
    "matching": {"task": "matching"},
    "mlm": {"task": "mlm", "pooling": "cls"},
    "mlm-four": {"task": "mlm", "pooling": "cls", "num_layers": 4},
    "bilstm": {
        "architecture": "bilstm",
        "num_layers": 1,
        "intermediate_size": 5,
        "pooling": "mean",
        "seed": 4,
    },
    "foreign": {
        "hidden_size": 6,
        "num_layers": 1,
        "seed": 4,
        "vocab": "without '##' and Chinese pieces",
    },
}

CASES = [
    # plain training
    {"name": "finetune", "method": "finetune"},
    {
        "name": "finetune-patience",
        "method": "finetune",
        "training": {"evaluations": 6, "patience": 1},
    },
    {"name": "finetune-bilstm", "method": "finetune", "model": "bilstm"},
    {
        "name": "finetune-tagging",
        "method": "finetune",
        "model": "tagging",
        "data": "tagging",
        "training": {"evaluations": 1},
    },
    {
        "name": "finetune-matching",
        "method": "finetune",
        "model": "matching",
        "data": "matching",
        "training": {"evaluations": 1},
    },
    {
        "name": "masked_lm-all",
        "method": "masked_lm",
        "data": "prose",
        "training": {"evaluations": 1},
    },
    {
        "name": "masked_lm-head",
        "method": "masked_lm",
        "data": "prose",
        "settings": {"train": "head"},
    },
    {
        "name": "masked_lm-whole-word",
        "method": "masked_lm",
        "model": "mlm",
        "data": "prose",
        "settings": {"whole_word": True, "mask_share": 0.3},
    },
    {
        "name": "pretrain-sop",
        "method": "pretrain",
        "model": "mlm",
        "data": "prose",
        "training": {"evaluations": 1},
    },
    {
        "name": "pretrain-nsp",
        "method": "pretrain",
        "data": "prose",
        "settings": {"sentence_task": "nsp", "ngram": 1},
    },
    {
        "name": "pretrain-none",
        "method": "pretrain",
        "data": "prose",
        "settings": {"sentence_task": "none"},
    },
    {
        "name": "from_scratch",
        "method": "from_scratch",
        "settings": {"config": {"hidden_size": 12, "num_layers": 4, "sharing": "all"}},
    },
    {
        "name": "from_scratch-mlm",
        "method": "from_scratch",
        "model": "mlm",
        "data": "prose",
        "settings": {"config": {"embedding_size": 4, "embedding_norm": "embedding"}},
    },
    # module replacing
    {"name": "theseus", "method": "theseus", "model": "four", "settings": {"num_layers": 2}},
    {
        "name": "theseus-sample",
        "method": "theseus",
        "model": "four",
        "settings": {"num_layers": 2, "granularity": "sample"},
    },
    {
        "name": "theseus-uniform",
        "method": "theseus",
        "settings": {"num_layers": 1, "gate": "uniform"},
    },
    {
        "name": "theseus-anneal",
        "method": "theseus",
        "settings": {"num_layers": 1, "gate": "anneal"},
    },
    {
        "name": "theseus-separate",
        "method": "theseus",
        "settings": {"num_layers": 1, "embeddings": "separate", "start": "bottom"},
    },
    {
        "name": "theseus-constant",
        "method": "theseus",
        "settings": {
            "num_layers": 1,
            "schedule": "constant",
            "rate": 0.5,
            "full_at": 1.0,
            "finetune_share": 0.0,
        },
    },
    {
        "name": "theseus-cosine",
        "method": "theseus",
        "settings": {"num_layers": 1, "schedule": "cosine"},
    },
    {
        "name": "theseus-layers-last",
        "method": "theseus",
        "settings": {"num_layers": 1, "train_head_last": False},
        "training": {"evaluations": 1},
    },
    {
        "name": "theseus-module-map",
        "method": "theseus",
        "model": "four",
        "settings": {"module_map": [[0], [1, 2, 3]]},
    },
    {
        "name": "theseus-tagging",
        "method": "theseus",
        "model": "tagging",
        "data": "tagging",
        "settings": {"num_layers": 1},
    },
    {
        "name": "theseus-matching",
        "method": "theseus",
        "model": "matching",
        "data": "matching",
        "settings": {"num_layers": 1},
    },
    # distillation
    {
        "name": "distilbert",
        "method": "distilbert",
        "model": "four",
        "settings": {"num_layers": 2},
        "training": {"evaluations": 1},
    },
    {
        "name": "distilbert-no-cosine",
        "method": "distilbert",
        "settings": {"num_layers": 1, "layers": "top", "cosine_weight": 0.0, "temperature": 4.0},
    },
    {
        "name": "distilbert-bilstm",
        "method": "distilbert",
        "settings": {"num_layers": 1, "cosine_weight": 0.0},
        "models": {"student": "bilstm"},
    },
    {
        "name": "distilbert-foreign",
        "method": "distilbert",
        "settings": {"num_layers": 1, "cosine_weight": 0.0},
        "models": {"student": "foreign"},
    },
    {
        "name": "distilbert-tagging",
        "method": "distilbert",
        "model": "tagging",
        "data": "tagging",
        "settings": {"num_layers": 1},
    },
    {
        "name": "distilbert-matching",
        "method": "distilbert",
        "model": "matching",
        "data": "matching",
        "settings": {"num_layers": 1},
    },
    {
        "name": "distilbert-general",
        "method": "distilbert_general",
        "model": "mlm-four",
        "data": "prose",
        "settings": {"num_layers": 2},
        "training": {"evaluations": 1},
    },
    {
        "name": "distilbert-general-masked",
        "method": "distilbert_general",
        "model": "mlm",
        "data": "prose",
        "settings": {"num_layers": 1, "tokens": "masked", "whole_word": True},
    },
    {"name": "pkd-skip", "method": "pkd", "model": "four", "settings": {"num_layers": 2}},
    {
        "name": "pkd-last",
        "method": "pkd",
        "model": "four",
        "settings": {"num_layers": 3, "layer_map": "last", "soft_reduction": "mean"},
    },
    {
        "name": "pkd-sum-not-normalized",
        "method": "pkd",
        "model": "four",
        "settings": {
            "num_layers": 2,
            "reduction": "sum",
            "beta": 1.0,
            "alpha": 0.2,
            "temperature": 10.0,
            "normalize": False,
        },
    },
    {
        "name": "multilevel",
        "method": "multilevel",
        "model": "four",
        "settings": {"num_layers": 2},
        "training": {"evaluations": 1},
    },
    {
        "name": "multilevel-tagging",
        "method": "multilevel",
        "model": "tagging",
        "data": "tagging",
        "settings": {
            "num_layers": 2,
            "head": "relu",
            "mix": "trained",
            "chained": True,
            "target": "probabilities",
            "student_activation": "gelu_tanh",
        },
    },
    {
        "name": "fastbert",
        "method": "fastbert",
        "model": "four",
        "data": "prose",
        "settings": {"exits": [1, 3]},
        "training": {"evaluations": 1},
    },
    {
        "name": "fastbert_teacher",
        "method": "fastbert_teacher",
        "model": "matching",
        "data": "matching",
    },
    {
        "name": "mobilebert",
        "method": "mobilebert",
        "model": "four",
        "settings": {"num_layers": 2},
        "training": {"evaluations": 1},
    },
    {
        "name": "mobilebert-projected",
        "method": "mobilebert",
        "model": "tagging",
        "data": "tagging",
        "settings": {
            "num_layers": 1,
            "config": {
                "hidden_size": 12,
                "bottleneck_size": 8,
                "num_heads": 4,
                "num_ffn": 2,
                "attention_input": "bottleneck",
                "norm": "layer",
            },
            "steps_per_layer": 2,
            "earlier_rate": 0.0,
        },
    },
    {
        "name": "mobilebert-general",
        "method": "mobilebert_general",
        "model": "mlm-four",
        "data": "prose",
        "settings": {"num_layers": 2, "alpha": 0.8, "temperature": 2.0},
        "training": {"evaluations": 1},
    },
    {
        "name": "tinybert",
        "method": "tinybert",
        "model": "four",
        "settings": {"num_layers": 2},
        "training": {"evaluations": 1},
    },
    {
        "name": "tinybert-thin",
        "method": "tinybert",
        "settings": {"num_layers": 1, "hidden_size": 6, "num_heads": 2, "intermediate_size": 10},
    },
    {
        "name": "tinybert-two-projections",
        "method": "tinybert",
        "settings": {
            "num_layers": 1,
            "hidden_size": 6,
            "num_heads": 1,
            "losses": ["embd", "hidn"],
            "layer_map": "top",
            "share_projection": False,
        },
    },
    {
        "name": "tinybert-copies",
        "method": "tinybert",
        "settings": {"num_layers": 1, "copies": 1},
        "models": {"mlm": "mlm"},
    },
    {
        "name": "tinybert-enlarged",
        "method": "tinybert",
        "settings": {
            "num_layers": 1,
            "copies": 2,
            "updates": "enlarged",
            "attention": "probabilities",
            "prediction": "mse",
        },
        "models": {"mlm": "mlm"},
    },
    {
        "name": "tinybert-general",
        "method": "tinybert_general",
        "model": "mlm",
        "data": "prose",
        "settings": {"num_layers": 1},
    },
    {
        "name": "tinybert-cached",
        "method": "tinybert",
        "model": "four",
        "settings": {"num_layers": 2},
        "training": {"cache_teacher": True, "folder": "temporary", "epochs": 4},
    },
    {
        "name": "tinybert-answers-alone",
        "method": "tinybert",
        "settings": {"num_layers": 1, "inside_share": 0.0, "temperature": 2.0},
    },
    {
        "name": "tinybert-inside-alone",
        "method": "tinybert",
        "settings": {"num_layers": 1, "inside_share": 1.0, "reduction": "reference"},
    },
    {"name": "spherical", "method": "spherical", "settings": {"num_layers": 1}},
    {
        "name": "spherical-layernorm",
        "method": "spherical",
        "model": "four",
        "settings": {"num_layers": 2, "scale": "layernorm", "layers": "top", "alpha": 0.5},
    },
    {
        "name": "spherical-teacher-std-tagging",
        "method": "spherical",
        "model": "tagging",
        "data": "tagging",
        "settings": {"num_layers": 1, "scale": "teacher_std"},
    },
    {
        "name": "spherical-matching",
        "method": "spherical",
        "model": "matching",
        "data": "matching",
        "settings": {"num_layers": 1, "l_avg": 5.0},
    },
    {
        "name": "teacher_assistant",
        "method": "teacher_assistant",
        "model": "four",
        "settings": {"num_layers": 1},
        "training": {"epochs": 1},
    },
    {
        "name": "teacher_assistant-all",
        "method": "teacher_assistant",
        "model": "four",
        "settings": {
            "num_layers": 1,
            "by": "all",
            "candidates": [3, 2],
            "loss": "spherical",
            "loss_settings": {"scale": "layernorm"},
        },
        "training": {"epochs": 1},
    },
    {"name": "optimal_subwords", "method": "optimal_subwords", "settings": {"num_layers": 1}},
    {
        "name": "optimal_subwords-narrow-matching",
        "method": "optimal_subwords",
        "model": "matching",
        "data": "matching",
        "settings": {"hidden_size": 4, "intermediate_size": 6, "projection": "both"},
    },
    {
        "name": "optimal_subwords-general",
        "method": "optimal_subwords_general",
        "model": "mlm",
        "data": "prose",
        "settings": {"num_layers": 1, "hidden_size": 4, "projection": "down", "p_dt": 0.3},
        "training": {"evaluations": 1},
    },
    # quantisation in few values and in integers
    {"name": "ternarybert", "method": "ternarybert"},
    {"name": "binarybert", "method": "binarybert"},
    {"name": "ibert", "method": "ibert"},
    # factorisation and sharing
    {
        "name": "albert-table-distil",
        "method": "albert",
        "settings": {"embedding_size": 4},
        "then": "soft_targets",
    },
    {
        "name": "albert-table-finetune",
        "method": "albert",
        "settings": {"embedding_size": 4},
        "then": "finetune",
    },
    {"name": "albert-table-none", "method": "albert", "settings": {"embedding_size": 4}},
    {
        "name": "albert-table-plain-svd",
        "method": "albert",
        "settings": {"embedding_size": 4, "row_weights": "none"},
    },
    {
        "name": "albert-all",
        "method": "albert",
        "model": "four",
        "settings": {"sharing": "all"},
        "then": "soft_targets",
    },
    {
        "name": "albert-attention",
        "method": "albert",
        "settings": {"sharing": "attention"},
        "then": "finetune",
    },
    {
        "name": "albert-ffn",
        "method": "albert",
        "model": "four",
        "settings": {"sharing": "ffn", "how": "first"},
    },
    {
        "name": "albert-groups-and-table",
        "method": "albert",
        "model": "four",
        "settings": {"sharing": "all", "num_groups": 2, "embedding_size": 4},
        "then": "soft_targets",
    },
    {
        "name": "define-linear",
        "method": "define",
        "model": "wide",
        "settings": {"embedding_size": 8, "adapter": "linear", "fit_steps": 20},
        "then": "soft_targets",
    },
    {
        "name": "define-mlp",
        "method": "define",
        "model": "wide",
        "settings": {"embedding_size": 8, "adapter": "mlp", "fit_steps": 20},
        "then": "finetune",
    },
    {
        "name": "define-hgt",
        "method": "define",
        "model": "wide",
        "settings": {"embedding_size": 8, "adapter": "hgt", "fit_steps": 20, "row_weights": "none"},
        "then": "soft_targets",
    },
    {
        "name": "define-folded",
        "method": "define",
        "model": "wide",
        "settings": {"embedding_size": 8, "adapter": "mlp", "fit_steps": 20},
        "then": "fold",
    },
    # quantisation and pruning
    {"name": "q8bert-static-8", "method": "q8bert", "settings": {"start_step": 2, "decay": 0.9}},
    {"name": "q8bert-static-4", "method": "q8bert", "settings": {"bits": 4, "start_step": 0}},
    {"name": "q8bert-dynamic-8", "method": "q8bert", "settings": {"activations": "dynamic"}},
    {
        "name": "q8bert-dynamic-4",
        "method": "q8bert",
        "settings": {"activations": "dynamic", "bits": 4},
    },
    {
        "name": "q8bert-dynamic-2",
        "method": "q8bert",
        "settings": {"activations": "dynamic", "bits": 2},
    },
    {"name": "clustering", "method": "clustering", "settings": {"num_clusters": 4}},
    {
        "name": "magnitude",
        "method": "magnitude",
        "settings": {"sparsity": 0.6, "initial_sparsity": 0.2, "begin": 0.2, "frequency": 1},
    },
    {
        "name": "heads",
        "method": "heads",
        "settings": {"heads": 0.5, "neurons": 0.25, "steps": 2},
    },
    {
        "name": "heads-token",
        "method": "heads",
        "model": "tagging",
        "data": "tagging",
        "settings": {"heads": 0.25, "unit": "token", "even": True, "tune_after": False},
    },
    {"name": "movement", "method": "movement", "settings": {"sparsity": 0.6, "block": 2}},
    {
        "name": "movement-soft",
        "method": "movement",
        "settings": {"how": "soft", "score_rate": 1.0, "penalty_weight": 1e3},
        "models": {"teacher": "two"},
    },
    {"name": "layerdrop", "method": "layerdrop", "settings": {"rate": 0.4}},
    {
        "name": "layerdrop-mlm",
        "method": "layerdrop_mlm",
        "model": "mlm",
        "data": "prose",
        "settings": {"rate": 0.4},
    },
    {"name": "layerdrop-depth", "method": "layerdrop_depth", "settings": {"num_layers": 1}},
    {"name": "layers-bottom", "method": "layers", "model": "four", "settings": {"num_layers": 2}},
    {
        "name": "layers-last-of-block",
        "method": "layers",
        "model": "four",
        "settings": {"num_layers": 2, "how": "last-of-block"},
    },
    {"name": "vocabulary", "method": "vocabulary"},
    {
        "name": "vocabulary-scripts",
        "method": "vocabulary",
        "data": "prose",
        "settings": {"scripts": ["LATIN"], "keep": ["##able"]},
    },
    {
        "name": "vocabulary-tuned",
        "method": "vocabulary",
        "settings": {"min_count": 10},
        "then": "finetune",
    },
]
# A method without a case above is recorded with one layer.
_own = {case[key] for case in CASES for key in ("method", "then") if key in case}
CASES += [
    {"name": name, "method": name, "settings": {"num_layers": 1}}
    for name in sorted({*methods()} - _own)
]

RECIPE = [
    ("predecessor", "finetune", "minilm"),
    ("theseus-1", "theseus", "predecessor", "num_layers = 1"),
    ("plain-1", "layers", "minilm", "num_layers = 1"),
]
# All run with --json. PLACE is a temporary folder, METHODS `methods M` of each M above; _ in a text
# is a space. An indented line goes on with the one before.
FAST = "--epochs 1 --max-length 16 --batch-size 8 --evaluations 1 --learning-rate 1e-2"
COMMANDS = """
train --from PLACE/bert-classification --data PLACE/classification --out PLACE/trained FAST
compress theseus --from PLACE/trained --data PLACE/classification --set num_layers=1
    --out PLACE/small FAST
compress q8bert --from PLACE/bert-tagging --data PLACE/tagging --set activations=dynamic
    --set bits=4 --out PLACE/tagger FAST
compress layers --from PLACE/bert-matching --data PLACE/matching --set num_layers=1
    --out PLACE/pairs FAST
train --from PLACE/bert-classification --new-head --data PLACE/prose.txt --out PLACE/mlm FAST
export --from PLACE/small --data PLACE/classification --out PLACE/files --length 16
    --formats float32,float16,int8,int8_per_tensor --allow-drift
export --from PLACE/tagger --out PLACE/tagger-files --length 12 --formats float32,int4
    --allow-drift
evaluate --from PLACE/small --data PLACE/classification
evaluate --from PLACE/small --data PLACE/classification --split dev
    --tflite PLACE/files/int8.tflite
evaluate --from PLACE/tagger --data PLACE/tagging
evaluate --from PLACE/pairs --data PLACE/matching --split train
benchmark PLACE/files/float32.tflite PLACE/files/int8.tflite --runs 3
benchmark PLACE/files/float32.tflite --from PLACE/small --runs 3
predict --from PLACE/small the_cat_sat 我听音乐
predict --from PLACE/tagger the_cats_sat
run PLACE/recipe.toml --data PLACE/classification --from PLACE/bert-classification --out PLACE/run
serve PLACE/classification
data show PLACE/classification
data show PLACE/tagging
data show PLACE/matching
data show PLACE/prose.txt
data show assistant
data show assistant --language zh --task tagging
data download
methods
METHODS
methods magic
table sharing-study
table PLACE/classification
export --from PLACE/mlm --out PLACE/none
train --from PLACE/nothing --out PLACE/none
"""
REPLACED = {
    "seconds": "<time>",
    "latency_ms_mean": "<time>",
    "latency_ms_p50": "<time>",
    "latency_ms_p90": "<time>",
    "steps_per_second": "<time>",
    "times_as_fast": "<time>",
    "device": "<processor>",
}
ROUNDING = ("max_dp", "mean_dp", "max_dlogit")  # differences from Keras; below `NOISE` replaced
STUDIES = [
    f"{name}-study"
    for name in (
        "distillation",
        "factorization",
        "pretraining",
        "quantization",
        "sharing",
        "theseus",
    )
]


def model_of(name):
    """A tiny model that `MODELS` describes."""
    from keras_compress.bert.task_model import TaskModel
    from keras_compress.bert.tokenizer import Tokenizer
    from tests.bert import tiny

    changes = dict(MODELS[name])
    task, seed = changes.pop("task", "classification"), changes.pop("seed", 1)
    pieces = tiny.VOCAB
    if changes.pop("vocab", None):
        pieces = [piece for piece in pieces if piece.isascii() and not piece.startswith("##")]
    return TaskModel(
        tiny.config(vocab_size=len(pieces), **changes),
        Tokenizer(pieces, True),
        task,
        tiny.LABELS.get(task, ()),
        seed=seed,
    )


def sentences(number=48):
    """Lines of five words, English and Chinese; four make a document."""
    import numpy as np

    words = "the a cat dog mats sat on un cafe 我 你好 听 音乐 1 2 x".split()
    random = np.random.default_rng(5)
    return [" ".join(words[i] for i in random.integers(0, len(words), 5)) for _ in range(number)]


def data_of(name):
    """Texts of a task as tests/samples.py has them, or "prose", unlabelled."""
    from keras_compress.datasets.dataset import Dataset, Split
    from tests import samples
    from tests.bert import tiny

    if name == "prose":
        texts = sentences()
        return Dataset(
            name,
            "unlabelled",
            (),
            Split(texts, [k // 4 for k in range(len(texts))]),
            Split(texts[:20], [k // 4 for k in range(20)]),
        )
    labels, splits = tiny.LABELS[name], []
    for split, number in zip(samples.SPLITS, (24, 20, 30)):
        rows = [row.split("\t") for row in samples.rows(name, split, number)]
        texts = [tuple(row[1:]) if name == "matching" else row[1] for row in rows]
        answers = [[labels.index(tag) for tag in row[0].split(" ")] for row in rows]
        splits.append(Split(texts, answers if name == "tagging" else [row[0] for row in answers]))
    return Dataset(name, name, labels, *splits)


def run_case(case):
    """The compressed model of a case."""
    from keras_compress.method import method
    from keras_compress.training.settings import Training

    training, models = {**TRAINING, **case.get("training", {})}, case.get("models", {})
    start, data = model_of(case.get("model", "two")), data_of(case.get("data", "classification"))
    with tempfile.TemporaryDirectory() as place:
        if "folder" in training:
            training["folder"] = place
        settings = {"seed": SEED, "training": Training(**training)}
        small = method(case["method"])(
            start,
            data,
            **settings,
            **case.get("settings", {}),
            **{name: model_of(model) for name, model in models.items()},
        )
        if case.get("then") in ("finetune", "fold"):
            return method(case["then"])(small, data, **settings)
        if case.get("then") == "soft_targets":
            return method("soft_targets")(start, data, student=small, **settings)
        return small


def summary(model):
    """Hash of all weights, their number, and [norm, sum] of each.

    The gradient of a key's bias is 0 but for rounding, and so is the bias: norms below `NOISE` are
    written as 0.
    """
    import numpy as np

    def pair(value):
        norm, total = np.linalg.norm(value), value.sum()
        return short([float(norm), float(total)] if norm > NOISE else [0.0, 0.0])

    weights = {name: np.asarray(value, np.float32) for name, value in model.weights().items()}
    weights = dict(sorted(weights.items()))
    whole = hashlib.sha256(b"".join(value.tobytes() for value in weights.values())).hexdigest()
    return {
        "sha256": whole,
        "num_weights": sum(value.size for value in weights.values()),
        "weights": {name: pair(value.astype(np.float64)) for name, value in weights.items()},
    }


def short(value, key=None, paths=()):
    """JSON data with floats of 6 digits; times, the processor and paths replaced."""
    if key in REPLACED and value is not None:
        return REPLACED[key]
    if key in ROUNDING and value is not None and value < NOISE:
        return "<rounding>"
    if isinstance(value, dict):
        return {name: short(item, name, paths) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [short(item, None, paths) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}")
    for path, name in paths if isinstance(value, str) else ():
        value = value.replace(path, name)
    return value


def record_weights(out, only, reverse):
    """weights.json; with `only` the file's other cases stay as they are."""
    path = out / "weights.json"
    if not any(only in case["name"] for case in CASES):
        raise SystemExit(f"--only must stand in the name of a case. Received: {only}. Add one.")
    known = json.loads(path.read_text(encoding="utf-8")) if only and path.is_file() else {}
    cases = known.get("cases", {})
    for case in CASES[::-1] if reverse else CASES:
        if only in case["name"]:
            started = time.process_time()
            cases[case["name"]] = {"method": case["method"], **summary(run_case(case))}
            say(time.process_time() - started, case["name"])
    cases = {case["name"]: cases[case["name"]] for case in CASES if case["name"] in cases}
    write(path, {"recorded": known.get("recorded", about()), "cases": cases}, depth=4)


def about():
    """What the bits of a weight depend on."""
    from keras_compress.experiment.run_folder import versions
    from mobile_export.benchmark import device

    return {"versions": versions(), "processor": device()}


def record_cli(out):
    """cli.json: what each command prints."""
    from tests import samples
    from tests.bert import tiny

    found, root = [], str(Path(__file__).resolve().parents[2])
    with tempfile.TemporaryDirectory() as place:
        paths = [(str(Path(place).resolve()), "PLACE"), (place, "PLACE"), (root, "ROOT")]
        for task in tiny.LABELS:
            samples.data(Path(place, task), task)
            samples.model(Path(place, f"bert-{task}"), task)
        samples.recipe(
            Path(place, "recipe.toml"),
            *RECIPE,
            head='formats = ["float32", "int8"]\nsequence_length = 16',
        )
        lines = sentences()
        documents = ["\n".join(lines[k : k + 4]) for k in range(0, len(lines), 4)]
        Path(place, "prose.txt").write_text("\n\n".join(documents), encoding="utf-8")
        for command in commands():
            started = time.process_time()
            words = command.replace("FAST", FAST).split()
            if words[0] == "predict":
                words = [word.replace("_", " ") for word in words]
            words = [word.replace("PLACE", place) for word in words]
            status, printed, said = call([*words, "--json"])
            row = {"command": command, "exit": status}
            row |= (
                {"stdout": short(json.loads(printed), None, paths)}
                if status == 0
                else {"stderr": short(said.strip().splitlines()[-1], None, paths)}
            )
            found.append(row)
            say(time.process_time() - started, command)
    write(out / "cli.json", found, depth=3)


def commands():
    """The lines of `COMMANDS`."""
    about_each = dict.fromkeys(f"methods {case['method']}" for case in CASES)
    text = COMMANDS.replace("\n    ", " ").replace("METHODS", "\n".join(about_each))
    return text.strip().split("\n")


def call(words):
    """Exit status, stdout and stderr of one command, run in this process."""
    from keras_compress.cli import main

    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        status = main(words)
    return status, printed.getvalue(), said.getvalue()


def say(seconds, what):
    print(f"{seconds:6.1f} s of processor time  {what}", file=sys.stderr, flush=True)


def record_tables(out):
    """tables/STUDY.md: the tables of data/results."""
    (out / "tables").mkdir(parents=True, exist_ok=True)
    for study in STUDIES:
        (out / "tables" / f"{study}.md").write_text(call(["table", study])[1], encoding="utf-8")


def write(path, value, depth):
    """Writes JSON; what lies deeper than `depth` takes one line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump(value, depth) + "\n", encoding="utf-8")


def dump(value, depth, indent=""):
    """JSON text, see `write`."""
    if not value or depth == 0 or not isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    deeper = indent + " "
    items = [
        dump(item, depth - 1, deeper)
        for item in (value.values() if isinstance(value, dict) else value)
    ]
    if isinstance(value, dict):
        keys = (json.dumps(key, ensure_ascii=False) for key in value)
        items = [f"{key}: {item}" for key, item in zip(keys, items)]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n{deeper}" + f",\n{deeper}".join(items) + f"\n{indent}{last}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help="weights, cli, tables (default: all)")
    parser.add_argument("--out", default=Path(__file__).parent, type=Path, help="folder to write")
    parser.add_argument("--only", default="", metavar="WORD", help="cases whose name holds this")
    parser.add_argument(
        "--reverse", action="store_true", help="the last case first: no case may depend on others"
    )
    options = parser.parse_args()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    parts = options.parts or ["weights", "cli", "tables"]
    if "weights" in parts:
        record_weights(options.out, options.only, options.reverse)
    if "cli" in parts:
        record_cli(options.out)
    if "tables" in parts:
        record_tables(options.out)


if __name__ == "__main__":
    main()
