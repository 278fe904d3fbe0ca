"""`Training`: how a model is trained. It imports no TensorFlow, so that recipes are read quickly."""

import contextlib
import contextvars
import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from keras_compress.method import BelowOne, Count, NotNegative, Positive, Whole, check

MOST_UPDATES = 10**8


@dataclass(frozen=True)
class Training:
    """Settings of a training run. Their kinds and ranges are checked; texts are for `--help`."""

    epochs: Annotated[Positive, "passes over the training texts; stages of a method share them"] = (
        3.0
    )
    batch_size: Annotated[Count, "texts per update"] = 32
    max_length: Annotated[
        Annotated[int, Field(ge=4)], "longest text in pieces; the rest is cut off"
    ] = 64
    learning_rate: Annotated[Positive, "peak learning rate; it falls linearly to 0"] = 1e-4
    warmup: Annotated[BelowOne, "share of the updates in which the learning rate rises"] = 0.1
    weight_decay: Annotated[NotNegative, "decoupled weight decay; none on biases and norms"] = 0.01
    clip_norm: Annotated[Positive, "largest global norm of the gradients"] = 1.0
    patience: Annotated[
        Count | None,
        "stop after so many evaluations on dev without a better one, and go back to the best weights",
    ] = None
    evaluations: Annotated[Whole, "how often dev is looked at in each stage; 0: never"] = 4
    checkpoint_every: Annotated[Count, "updates between checkpoints"] = 200
    folder: Annotated[
        str | None, "where checkpoints and the TensorBoard log of one run go; None: nowhere"
    ] = None
    strategy: Annotated[
        Literal["none", "mirrored"],
        "mirrored: all devices (with TF_CONFIG set: all workers) share each batch",
    ] = "none"
    cache_teacher: Annotated[
        bool,
        "distillation: run the teacher once per text in each stage and keep its outputs on disk",
    ] = False
    max_unknown: Annotated[
        NotNegative, "largest share of the training texts' words that the vocabulary may not know"
    ] = 0.5

    def __post_init__(self):
        check(Training, vars(self))
        if self.patience and not self.evaluations:
            raise ValueError("`patience` needs `evaluations` on dev. Received: 0. Leave one out.")

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)

    def num_steps(self, num_examples):
        """Updates in a run over `num_examples` texts. Raises ValueError if no machine would end it."""
        number = self.epochs * math.ceil(num_examples / self.batch_size)
        if number > MOST_UPDATES:
            raise ValueError(
                f"A training may make at most {MOST_UPDATES:,} updates. Received: {number:,.3g}, in {self.epochs:g} "
                "epochs. Lower `epochs`."
            )
        return max(1, round(number))

    def scope(self):
        """The context in which a method builds and compiles what it trains."""
        from keras_compress.training.optimizer import strategy

        return strategy(self.strategy).scope()

    def settings(self):
        """What belongs into a model's history: everything but folder, checkpoints and limits."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in ("folder", "checkpoint_every", "max_unknown")
        }


_rehearsed = contextvars.ContextVar("stages of the rehearsal at work", default=None)


@contextlib.contextmanager
def rehearsal():
    """Within it every stage of training ends after two updates: the first is slow, since the graph is made.

    Yields:
        list, to which each stage adds (updates that it would make, seconds of its last update).
    """
    token = _rehearsed.set([])
    try:
        yield _rehearsed.get()
    finally:
        _rehearsed.reset(token)


def rehearsed():
    """The list that `rehearsal` yields; None if nothing is rehearsed."""
    return _rehearsed.get()
