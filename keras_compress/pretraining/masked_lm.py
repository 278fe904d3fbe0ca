"""Pre-training on masked words, and models to start it from. Devlin et al., 2019, arXiv:1810.04805, Sec. 3.1, Task 1.

Equation map
    Task 1   -mean log p(true word), over the masked words alone      masked_loss
    Task 1   which words are masked, and how                          masking.py
Departures
    AdamW, where ALBERT's authors use LAMB for their batches of 4,096.
    The head scores the masked words alone, since all would cost several times as much.
"""

from typing import Literal

import numpy as np

from keras_compress.backend import keras, tf
from keras_compress.bert.checkpoints import with_head
from keras_compress.bert.encoder import LayerStore, mlm_head
from keras_compress.bert.layers import register
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tasks import TASKS
from keras_compress.method import compression, note
from keras_compress.pretraining.masking import MaskShare, each_piece, mask_words
from keras_compress.training.loop import fit, stream
from keras_compress.training.losses import label_loss
from keras_compress.training.optimizer import adamw
from keras_compress.training.settings import Training


@register
class TakeTokens(keras.layers.Layer):
    """The hidden states of chosen tokens alone. (batch, seq, hidden), bool (batch, seq) -> (chosen, hidden)."""

    def call(self, x, chosen):
        return tf.boolean_mask(x, chosen)


def choosing_model(task_model, hidden=None):
    """A `keras.Model` on the same layers that scores chosen tokens alone.

    `hidden`: symbolic last hidden states, a function of `task_model.model.input`; None: the model's own.
    Inputs: the usual ones and `targets` (batch, seq), -1 where a token is left out.
    Returns: dict of `logits` (chosen tokens, vocabulary) and `hidden` (batch, seq, hidden), the last
    hidden states.
    Raises: ValueError unless the vocabulary has [MASK].
    """
    if "[MASK]" not in task_model.tokenizer.ids:
        raise ValueError(
            "The vocabulary must have the piece [MASK]. Received: a vocabulary without it. Take the "
            "vocab.txt of a BERT."
        )
    targets = keras.Input((None,), dtype="int32", name="targets")
    inputs = task_model.model.input
    if hidden is None:
        hidden = task_model.features(["hidden_states"]).output["hidden_states"][-1]
    get = LayerStore(task_model.config, existing=task_model.model.layers)
    logits = mlm_head(get, TakeTokens(name="take_tokens")(hidden, targets >= 0))
    return keras.Model({**inputs, "targets": targets}, {"logits": logits, "hidden": hidden})


def masked_loss(targets, logits):
    """Cross-entropy in nats, mean over masked tokens. (batch, seq) with -1, (masked tokens, vocabulary) -> scalar."""
    return label_loss(targets[targets >= 0], logits)


def masked_stream(dataset, tokenizer, training, seed, *, whole_word=False, share=0.15):
    """(first, last) -> tf.data of what `mask_words` gives; see `loop.stream`."""

    def mask(step, batch):
        inputs, words = batch
        words = words if whole_word else each_piece(inputs, tokenizer)
        return mask_words(inputs, words, tokenizer, [seed, step], share)

    def batches(*span):
        texts = stream(dataset, tokenizer, training, seed, *span, words=whole_word)
        return texts.enumerate(span[0]).map(mask)

    return batches


def masked_accuracy(task_model, dataset, training, share=0.15):
    """Share of the masked pieces of 1,000 texts of dev that the model guesses, 0-1; the masks are always the same."""
    right, model, tokenizer = [], choosing_model(task_model), task_model.tokenizer
    few = dataset.subset(num_dev=1000)
    batches = few.batches("dev", tokenizer, training.batch_size, training.max_length)
    for step, (inputs, _) in enumerate(batches):
        words = each_piece(inputs, tokenizer)
        inputs, targets = mask_words(inputs, words, tokenizer, (0, step), share)
        logits = model(inputs, training=False)["logits"]
        right.append(tf.argmax(logits, -1, tf.int32) == targets[targets >= 0])
    right = np.concatenate(right)
    return float(np.mean(right)) if len(right) else 0.0


@compression(data="any", trained_head=False)
def masked_lm(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    train: Literal["head", "all"] = "all",
    whole_word: bool = False,
    mask_share: MaskShare = 0.15,
):
    """Trains a masked-LM model on text.

    Args:
        task_model: `TaskModel`; one of another task gets a new masked-LM head.
        dataset: labels are not looked at.
        train: "head" (with the encoder as it is, embedding matrix included) or "all".
        whole_word: mask words as a whole. mask_share: chance of a word.
    Returns:
        `TaskModel` of task "mlm".
    """
    if whole_word and (dataset.pairs or TASKS[dataset.task].texts == "words"):
        raise ValueError(
            f"`whole_word` needs single texts. Received: {dataset.task} data ({dataset.name}). Leave it out."
        )
    model = with_head(task_model, "mlm", (), seed=seed)
    for layer in model.model.layers:
        layer.trainable = train == "all" or layer.name.startswith("mlm_")
    chosen = choosing_model(model)
    trained = keras.Model(chosen.input, chosen.output["logits"])
    num_steps = training.num_steps(len(dataset.train.texts))
    trained.compile(adamw(training, num_steps), masked_loss, jit_compile=False)
    masks = {"whole_word": whole_word, "share": mask_share}
    model.curve += fit(
        trained,
        model,
        dataset,
        training,
        seed=seed,
        stage="mlm",
        batches=masked_stream(dataset, model.tokenizer, training, seed, **masks),
        measure=lambda: masked_accuracy(model, dataset, training, mask_share),
    )
    return model


@compression(data="any", trained_head=False, trains=False, seeded=True)
def from_scratch(task_model, dataset, *, seed=0, training=Training(), config: dict = {}):
    """A model with random weights, on the vocabulary of another: what pre-training starts from.

    Args:
        task_model: `TaskModel` with the tokenizer.
        dataset: tells task and labels; if it is None or unlabelled, the given model tells them.
        config: fields of `BertConfig` that differ from the given model's, such as
            {"hidden_size": 128, "sharing": "all"}.
    Returns:
        `TaskModel`.
    """
    shape = task_model.config.replace(**config)
    told = task_model if dataset is None or dataset.task == "unlabelled" else dataset
    model = TaskModel(shape, task_model.tokenizer, told.task, told.labels, seed=seed)
    note(new=sorted(model.weights()))
    return model
