"""Options that several verbs share, each group as a dataclass that loads what they name."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BeforeValidator

from keras_compress import method as boundary

COMMAS = BeforeValidator(lambda text: re.split(r"\s*,\s*", text.strip()))


@dataclass
class Texts:
    """Options of every verb that reads data.

    data: assistant, apidocs, a downloaded set, or a folder with train.tsv, dev.tsv, test.tsv, labels.txt
        (default: assistant, or the recipe's; export: random ids)
    task: classification, matching, tagging or unlabelled, of a built-in set (default: classification); other
        sets know theirs. Unlabelled text makes a masked-LM model
    language: en or zh, of assistant
    """

    data: str | None = None
    task: Literal["classification", "matching", "tagging", "unlabelled"] | None = None
    language: Literal["en", "zh"] = "en"

    def load(self):
        from keras_compress import datasets

        return datasets.load(self.data or "assistant", task=self.task, language=self.language)

    def given(self):
        """The data set that was named, None if none was."""
        return self.load() if self.data else None


@dataclass
class Source:
    """Options of every verb that loads a model.

    source: minilm; bilstm, a new small one; a model folder of this project, of Hugging Face (safetensors) or
        of Google's BERT; a bert4keras .h5 file
    new_head: leave out the classifier that the source has
    labels: the classes in the model's order, such as no,yes, where its files do not tell them; --task says
        what it does with them
    pooling: pooler, cls or mean: what the classifier reads (default: as the source was trained)
    lowercase: put texts into lower case (default: as the source's files say)
    ignore_weights: PATTERN, such as lm_head.*: weights that no part of a model takes may be left out; may be
        repeated
    """

    source: str
    new_head: bool = False
    labels: Annotated[list[str], COMMAS] | None = None
    pooling: Literal["pooler", "cls", "mean"] | None = None
    lowercase: bool | None = None
    ignore_weights: list[str] = field(default_factory=list)

    def load(self, dataset=None, task=None, trained=True, seed=0):
        """(model, data with its labels in the model's order); `trained`: the model's head must be."""
        from keras_compress.bert.checkpoints import load, load_with

        if dataset:
            model, dataset = load_with(dataset=dataset, **vars(self), seed=seed)
        else:
            task = "mlm" if task == "unlabelled" else task
            model = load(**vars(self), task=task, seed=seed)
        if trained:
            boundary.check_trained(model)
        return model, dataset


@dataclass
class AnySource(Source):
    __doc__ = Source.__doc__

    source: str | None = None
