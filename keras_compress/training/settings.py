"""`Training`: how a model is trained. Apart from training.py, so that reading it does not import TensorFlow."""

import dataclasses
import math
from dataclasses import dataclass


def check_choice(name, value, choices):
    """Raises ValueError unless a setting is one of the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}. Received: {value!r}.")


def is_whole(value, low, high=math.inf):
    """Whether a setting is a whole number in [low, high]; True and 3.0 are none."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


@dataclass(frozen=True)
class Training:
    """Settings of a training run.

    Attributes:
        epochs: passes over the training texts; may be a fraction. Methods with several stages split them.
        batch_size: texts per update. max_length: longest text in pieces; the rest is cut off and counted.
        learning_rate: peak; reached after `warmup` (a share of all updates), then linearly down to 0.
        weight_decay: decoupled; none on biases and normalisation. clip_norm: global gradient norm.
        patience: stop after so many evaluations without a better dev metric, and go back to the best weights;
            None = train to the end and keep the last.
        evaluations: how often dev, where there is one, is looked at in each stage, the end included; 0 = never.
        checkpoint_every: updates between checkpoints. folder: where checkpoints and the TensorBoard log go;
            None = neither is written, and nothing can be resumed. A folder belongs to one run.
        strategy: "none", or "mirrored": every visible device (with TF_CONFIG set: every worker) takes a share of
            each batch.
        cache_teacher: in distillation, run the teacher once per text in each stage and keep its outputs on disk for
            the stage's later epochs.
    """

    epochs: float = 3.0
    batch_size: int = 32
    max_length: int = 64
    learning_rate: float = 1e-4
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    patience: int | None = None
    evaluations: int = 4
    checkpoint_every: int = 200
    folder: str | None = None
    strategy: str = "none"
    cache_teacher: bool = False

    def __post_init__(self):
        for name in ("epochs", "batch_size", "learning_rate", "clip_norm", "checkpoint_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be positive. Received: {getattr(self, name)!r}.")
        for name in ("weight_decay", "evaluations"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be 0 or more. Received: {getattr(self, name)!r}.")
        if self.patience is not None and not self.evaluations:
            raise ValueError(
                "`patience` needs `evaluations` on dev. Received: none of them. Leave one out."
            )
        if self.patience is not None and not (isinstance(self.patience, int) and self.patience > 0):
            raise ValueError(
                f"`patience` must be a whole number of 1 or more, or none. Received: {self.patience!r}."
            )
        if not 0 <= self.warmup < 1:
            raise ValueError(f"`warmup` must be in [0, 1). Received: {self.warmup!r}.")
        if self.strategy not in ("none", "mirrored"):
            raise ValueError(f"`strategy` must be none or mirrored. Received: {self.strategy!r}.")

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)

    def num_steps(self, num_examples):
        """Updates in a run over `num_examples` texts."""
        return max(1, round(self.epochs * math.ceil(num_examples / self.batch_size)))

    def scope(self):
        """The context in which a method builds and compiles what it trains."""
        from keras_compress.training.loop import strategy

        return strategy(self.strategy).scope()

    def settings(self):
        """What belongs into a model's history: everything but where the files went."""
        return {
            k: v
            for k, v in dataclasses.asdict(self).items()
            if k not in ("folder", "checkpoint_every")
        }
