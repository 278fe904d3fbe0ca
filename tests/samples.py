"""Small data folders and saved models for tests of whole commands: a text's class is the animal or thing in it."""

import numpy as np

from keras_compress.datasets.dataset import Dataset, Split
from tests.bert import tiny

WORDS = "the a sat on un cafe 1 2 x".split()
KEYS = "cat dog mat".split()
SPLITS = ("train", "dev", "test")


def rows(task, split, number):
    """Distinct lines of a TSV file; no text of one split occurs in another."""
    random, found = np.random.default_rng(SPLITS.index(split)), {}
    while len(found) < number:
        draws = [random.integers(0, len(WORDS), 4) for _ in range(2)]
        keys = random.integers(0, 3, 2)
        if draws[0].sum() % 3 != SPLITS.index(split):
            continue
        texts = []
        for draw, key in zip(draws, keys):
            words = [WORDS[i] for i in draw]
            words.insert(draw[0] % 5, KEYS[key])
            texts.append(words)
        if task == "tagging":
            tags = [
                "B-x" if word == "cat" else "I-x" if word == "dog" else "O" for word in texts[0]
            ]
            found[" ".join(texts[0])] = " ".join(tags)
        elif task == "matching":
            found["\t".join(" ".join(words) for words in texts)] = (
                "same" if keys[0] == keys[1] else "other"
            )
        elif task == "regression":
            found["\t".join(" ".join(words) for words in texts)] = keys[0] + keys[1] / 2
        elif task == "multilabel":  # what is in the first half of the text, and in the second
            names = sorted({tiny.LABELS[task][key] for key in keys})
            found[" ".join(texts[0] + texts[1])] = "|".join(names if draws[1][0] % 3 else [])
        else:
            found[" ".join(texts[0])] = tiny.LABELS[task][keys[0]]
    return [f"{label}\t{text}" for text, label in found.items()]


def data(folder, task="classification", numbers=(24, 20, 30)):
    """Writes train, dev, test and labels.txt; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = task in ("matching", "regression")
    header = "label\ttext_a\ttext_b" if pairs else "label\ttext"
    for split, number in zip(SPLITS, numbers):
        (folder / f"{split}.tsv").write_text(
            "\n".join([header, *rows(task, split, number)]) + "\n", encoding="utf-8"
        )
    if task != "regression":
        (folder / "labels.txt").write_text("\n".join(tiny.LABELS[task]) + "\n", encoding="utf-8")
    return folder


def corpus(num_documents=200, sentences=7, dev=True, seed=0):
    """Running text: documents of sentences of 6 words. No sentence occurs twice, so it tells its own position."""
    words = "the a cat dog sat on mat un cafe".split()
    random, texts = np.random.default_rng(seed), {}
    while len(texts) < num_documents * sentences:
        texts[" ".join(words[i] for i in random.integers(0, len(words), 6))] = None
    whole = Split(list(texts), [k // sentences for k in range(len(texts))])
    return Dataset("prose", "unlabelled", (), whole, whole if dev else None)


def model(folder, task="classification", tuned=False, **changes):
    """Saves a tiny BERT, which says that it was fine-tuned if `tuned`; returns the folder."""
    made = tiny.model(task, **changes)
    made.history = [{"method": "finetune"}] * tuned
    made.save(folder)
    return folder


STEP = """[[step]]
name = "{}"
method = "{}"
from = "{}"
{}
"""


def recipe(path, *steps, head='formats = ["float32"]\nsequence_length = 16', training="epochs = 1"):
    """Writes a recipe; steps are (name, method, from[, settings])."""
    lines = [
        head,
        "[training]",
        "max_length = 16\nbatch_size = 8\nevaluations = 1\nlearning_rate = 1e-2",
        training,
    ]
    path.write_text(
        "\n".join(lines + [STEP.format(*(*step, "")[:4]) for step in steps]), encoding="utf-8"
    )
    return path
