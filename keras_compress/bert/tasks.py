"""The tasks: what a text is, how logits become an answer, what is measured. All that depends on a task is read here.

    task             a text is              labels of a text         answer     loss                    metric
    classification   one text               a name                   softmax    cross-entropy           accuracy
    matching         a pair                 a name                   softmax    cross-entropy           accuracy
    tagging          words                  a name for each word     softmax    cross-entropy           entity F1
    multilabel       one text or a pair     a set of names           sigmoid    binary cross-entropy    micro F1
    regression       one text or a pair     a number                 number     squared error           Pearson
    mlm              one text               its masked pieces        softmax    cross-entropy           -
    unlabelled       one text               its document's number    - (data alone: a model for them is one for mlm)

The answers are computed in answers.py, the losses in training/losses.py, the metrics in measure/accuracy.py.
"""

import re
from typing import NamedTuple

THRESHOLD = 0.5  # of multilabel, where none was chosen on dev
SCORE = ("score",)  # the one name of a number, in place of labels
UNSHOWN = re.compile("[\0-\x08\n-\x1f\x7f-\x9f\ud800-\udfff]|^$")  # no name of a label


class Task(NamedTuple):
    """texts: "one", "pair", "words" (separated by one space) or "either" (one text or a pair).
    answer: what the logits give: "softmax" (one name), "sigmoid" (each name on its own) or "number" (the output itself);
        None if no model is for it.
    per_token: whether there are logits for each token, not one row for a text.
    metric: that of `measure.accuracy`, None if there are no labels."""

    texts: str
    answer: str | None
    metric: str | None
    per_token: bool = False


TASKS = {
    "classification": Task("one", "softmax", "accuracy"),
    "matching": Task("pair", "softmax", "accuracy"),
    "tagging": Task("words", "softmax", "entity_f1", per_token=True),
    "multilabel": Task("either", "sigmoid", "micro_f1"),
    "regression": Task("either", "number", "pearson"),
    "mlm": Task("one", "softmax", None, per_token=True),
    "unlabelled": Task("one", None, None),
}


def encoding(task, tokenizer):
    """The tokenizer's function for the texts of a task: (texts, max_length) -> list of `Encoding`."""
    return tokenizer.encode_words if TASKS[task].texts == "words" else tokenizer.encode


def check_labels(task, labels):
    """Raises ValueError unless these can be the labels of a model for the task."""
    fit = len({*labels}) == len(labels) >= 2 and not any(map(UNSHOWN.search, labels))
    only = {"mlm": (), "regression": SCORE}
    if labels != only[task] if task in only else not fit:
        raise ValueError(
            "Labels must be two or more different names of one line each, in characters of UTF-8 that show; "
            f"for regression there is {SCORE[0]} alone, a masked-LM model has none. Received: {[*labels[:20]]}."
        )
