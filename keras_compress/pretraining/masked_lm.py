"""Pre-training: masked words (Devlin et al., 2019, Sec. 3.1, Task 1), alone or with a task on pairs of sentences.

    masked_lm      the head that fills in words, or the whole encoder
    from_scratch   a model with random weights
    pretrain       masked words and sentence order (ALBERT) or next sentence (BERT) together
Departures
    AdamW, where ALBERT's authors use LAMB for their batches of 4,096. Pairs of sentences are drawn once and read again
    in every epoch, each time with other words masked.
"""

import statistics
import time

import numpy as np

from keras_compress.backend import keras, tf
from keras_compress.bert.checkpoints import with_head
from keras_compress.bert.encoder import INPUT_NAMES, LayerStore, mlm_head, task_head
from keras_compress.bert.layers import register
from keras_compress.bert.task_model import TaskModel
from keras_compress.pretraining.masking import check_mask_piece, each_piece, each_word, mask_words
from keras_compress.pretraining.sentence_pairs import LABELS, by_length, sentence_pairs
from keras_compress.method import check_not_quantized
from keras_compress.training.loop import fit, stream
from keras_compress.training.optimizer import adamw
from keras_compress.training.settings import Training, check_choice, is_whole


@register
class TakeTokens(keras.layers.Layer):
    """The hidden states of chosen tokens alone. (batch, seq, hidden), bool (batch, seq) -> (chosen, hidden)."""

    def call(self, x, chosen):
        return tf.boolean_mask(x, chosen)


def masked_stream(dataset, tokenizer, training, seed, *, whole_word=False, share=0.15):
    """(first, last) -> tf.data of (inputs with masked words, targets); see `training.stream` and `mask_words`."""
    check_mask_piece(tokenizer)

    def mask(step, inputs, words):
        words = words if whole_word else each_piece(inputs, tokenizer)
        return mask_words(
            inputs, words, tokenizer, tf.stack([tf.cast(seed, tf.int64), step]), share
        )

    return lambda first, last: (
        stream(dataset, tokenizer, training, seed, first, last, words=whole_word)
        .enumerate(first)
        .map(lambda step, batch: mask(step, *batch))
    )


def masked_accuracy(task_model, dataset, training, share=0.15, num_texts=1000):
    """Share of the masked pieces of dev that the model guesses; the masks are the same at every call."""
    right, total = 0, 0
    few = dataset.subset(num_dev=num_texts)
    few_batches = few.batches("dev", task_model.tokenizer, training.batch_size, training.max_length)
    model = choosing_model(task_model)
    for step, (inputs, _) in enumerate(few_batches):
        words = each_piece(inputs, task_model.tokenizer)
        inputs, targets = mask_words(inputs, words, task_model.tokenizer, (0, step), share)
        found = tf.argmax(
            model({**inputs, "targets": targets}, training=False)["logits"],
            -1,
            output_type=tf.int32,
        )
        right += int(tf.reduce_sum(tf.cast(found == targets[targets >= 0], tf.int32)))
        total += len(found)
    return right / max(total, 1)


def choosing_model(task_model):
    """A `keras.Model` on the same layers that scores some tokens alone, since all would cost several times as much.

    Inputs: the usual ones and `targets` (batch, seq), -1 where a token is left out.
    Returns: dict of `logits` (chosen tokens, vocabulary) and `hidden` (batch, seq, hidden), the last hidden states.
    """
    targets = keras.Input((None,), dtype="int32", name="targets")
    features = task_model.features(["hidden_states"])
    hidden = features.output["hidden_states"][-1]
    get = LayerStore(task_model.config, existing=task_model.model.layers)
    logits = mlm_head(get, TakeTokens(name="take_tokens")(hidden, targets >= 0))
    return keras.Model({**features.input, "targets": targets}, {"logits": logits, "hidden": hidden})


def masked_lm(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    train="all",
    whole_word=False,
    mask_share=0.15,
):
    """Trains a masked-LM model on text.

    Args:
        task_model: `TaskModel`; one of another task gets a new masked-LM head.
        dataset: `Dataset`; labels are not looked at.
        train: "head" (with the encoder as it is, word table included) or "all".
        whole_word: mask words as a whole. mask_share: chance of a word.
    Returns:
        `TaskModel` of task "mlm".
    Raises:
        ValueError: if the vocabulary has no [MASK], whole words are asked for of pairs, no share of words, or the model
            quantises.
    """
    check_not_quantized(task_model)
    if whole_word and dataset.task in ("matching", "tagging"):
        raise ValueError(
            "`whole_word` needs single texts. Received: "
            f"{dataset.task} data ({dataset.name}). Leave it out."
        )
    check_choice("train", train, ("head", "all"))
    check_masks(mask_share)
    with training.scope():
        model = with_head(task_model, "mlm", (), seed=seed)
        for layer in model.model.layers:
            layer.trainable = train == "all" or layer.name.startswith("mlm_")
        chosen = choosing_model(model)
        trained = keras.Model(chosen.input, chosen.output["logits"])
        num_steps = training.num_steps(len(dataset.train.texts))
        trained.compile(adamw(training, num_steps), masked_loss, jit_compile=False)
    model.history.append(
        {
            "method": "masked_lm",
            "seed": seed,
            "num_steps": num_steps,
            "train": train,
            "whole_word": whole_word,
            "mask_share": mask_share,
            "training": training.settings(),
        }
    )
    batches = masked_stream(
        dataset, model.tokenizer, training, seed, whole_word=whole_word, share=mask_share
    )
    model.curve += fit(
        trained,
        model,
        dataset,
        training,
        seed=seed,
        stage="mlm",
        num_steps=num_steps,
        batches=lambda first, last: batches(first, last).map(
            lambda inputs, targets: ({**inputs, "targets": targets}, targets)
        ),
        measure=lambda: masked_accuracy(model, dataset, training, mask_share),
    )
    model.model.trainable = True
    return model


def check_masks(mask_share, ngram=1):
    """Raises ValueError unless words can be masked so; to be called before training."""
    if not isinstance(mask_share, float) or not 0.0 < mask_share < 1.0 or not is_whole(ngram, 1):
        raise ValueError(
            "`mask_share` must be between 0 and 1, `ngram` a whole number of 1 or more. "
            f"Received: {mask_share!r} and {ngram!r}."
        )


@register
def masked_loss(targets, logits):
    """Cross-entropy in nats, mean over masked tokens. (batch, seq) with -1, (masked tokens, vocabulary) -> scalar."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets[targets >= 0], logits)
    return tf.math.divide_no_nan(tf.reduce_sum(losses), tf.cast(tf.size(losses), tf.float32))


def from_scratch(task_model, dataset, *, seed=0, training=Training(), config={}):
    """A model with random weights, on the vocabulary of another one: what pre-training starts from.

    Args:
        task_model: `TaskModel` with the tokenizer. training: not looked at.
        dataset: tells task and labels; if it is None or unlabelled, the given model tells them.
        config: fields of `BertConfig` that differ from the given model's: {"hidden_size": 128, "sharing": "all", ..}.
    Returns:
        `TaskModel`.
    Raises:
        ValueError: if `BertConfig` has no such field, the values do not fit, or the given model quantises.
    """
    check_not_quantized(task_model)
    try:
        shape = task_model.config.replace(**config)
    except TypeError as error:
        raise ValueError(
            f"`config` must be fields of BertConfig and their values. Received: {config!r} ({error})."
        ) from error
    told = task_model if dataset is None or dataset.task == "unlabelled" else dataset
    with training.scope():
        model = TaskModel(shape, task_model.tokenizer, told.task, told.labels, seed=seed)
    model.history = [
        {
            "method": "load",
            "source": "from_scratch",
            "loaded": 0,
            "new": sorted(model.weights()),
            "left_out": [],
            "seed": seed,
        }
    ]
    return model


def pretrain(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    sentence_task="sop",
    ngram=3,
    mask_share=0.15,
):
    """Trains on running text: masked words and, as much, a task on pairs of segments. Lan et al., 2020 (ALBERT).

    The sentence head is dense + tanh on [CLS] and two scores. It is left behind, where the authors fine-tune from its
    dense layer: what comes next has a head of its own.
    Its accuracy on dev, texts unmasked, is in the history, beside the number of pairs, what the lengths of the two
    segments alone would give, and the updates per second; in the curve it is `dev_sentence`, beside `dev`, the share of
    masked words guessed.

    Args:
        task_model: `TaskModel`; one of another task gets a new masked-LM head.
        dataset: unlabelled `Dataset`, whose labels number the documents.
        sentence_task: "sop", "nsp" or "none", see `sentence_pairs`.
        ngram: most words in a row that are masked together. mask_share: chance of a word.
    Returns:
        `TaskModel` of task "mlm".
    Raises:
        ValueError: if the vocabulary has no [MASK], the model no two token types, the text no sentences to order, words
            cannot be masked so, or the model quantises.
    """
    check_not_quantized(task_model)
    check_mask_piece(task_model.tokenizer)
    check_masks(mask_share, ngram)
    if task_model.config.type_vocab_size < 2:
        raise ValueError(
            "Pairs of segments need two token types. Received: a model with `type_vocab_size` "
            f"{task_model.config.type_vocab_size}. Take a BERT that has them, or train `masked_lm`."
        )
    pairs = sentence_pairs(dataset, task_model.tokenizer, training.max_length, sentence_task, seed)
    as_written = (
        pairs
        if sentence_task == "none"
        else sentence_pairs(dataset, task_model.tokenizer, training.max_length, "none", seed)
    )
    with training.scope():
        model = with_head(task_model, "mlm", (), seed=seed)
        chosen = choosing_model(model)
        heads, losses = {"mlm": chosen.output["logits"]}, {"mlm": masked_loss}
        if sentence_task != "none":
            get = LayerStore(model.config.replace(pooling="pooler"), 10_000 * seed + 5_000)
            _, heads["sentence"] = task_head(
                get, "matching", len(LABELS), chosen.output["hidden"], chosen.input["input_mask"]
            )
            losses["sentence"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        named = {
            name: keras.layers.Activation("linear", name=name)(scores)
            for name, scores in heads.items()
        }
        trained = keras.Model(chosen.input, named)  # the curve's columns have these names
        num_steps = training.num_steps(len(pairs.train.texts))
        trained.compile(
            adamw(training, num_steps),
            losses,
            jit_compile=False,
            metrics={name: "accuracy" for name in heads if name == "sentence"},
        )

    def mask(step, batch):
        words, draw = (
            each_word(batch[0], model.tokenizer),
            tf.stack([tf.cast(seed, tf.int64), step]),
        )
        inputs, targets = mask_words(batch[0], words, model.tokenizer, draw, mask_share, ngram)
        answers = {"mlm": targets, "sentence": batch[1]}
        return {**inputs, "targets": targets}, {name: answers[name] for name in heads}

    judge = (
        keras.Model({name: chosen.input[name] for name in INPUT_NAMES}, heads["sentence"])
        if "sentence" in heads and pairs.dev
        else None
    )

    def sentence_accuracy():
        batches = pairs.batches("dev", model.tokenizer, training.batch_size, training.max_length)
        right = [
            tf.argmax(judge(inputs, training=False), -1).numpy() == labels.numpy()
            for inputs, labels in batches
        ]
        return float(np.mean(np.concatenate(right)))

    def measure():
        words = {
            "dev": masked_accuracy(model, as_written, training, mask_share)
        }  # the same texts in every task
        return {**words, "dev_sentence": sentence_accuracy()} if judge else words

    clock = StepClock()
    model.history.append(
        {
            "method": "pretrain",
            "seed": seed,
            "num_steps": num_steps,
            "sentence_task": sentence_task,
            "ngram": ngram,
            "mask_share": mask_share,
            "pairs": len(pairs.train.texts),
            "parameters": model.model.count_params(),
            "training": training.settings(),
        }
    )
    rows = fit(
        trained,
        model,
        pairs,
        training,
        seed=seed,
        stage="pretrain",
        num_steps=num_steps,
        batches=lambda first, last: (
            stream(pairs, model.tokenizer, training, seed, first, last).enumerate(first).map(mask)
        ),
        callbacks=[clock],
        measure=measure,
    )
    model.curve += rows
    model.history[-1] |= {
        "sentence_accuracy": judge and sentence_accuracy(),
        "sentence_pairs": judge and len(pairs.dev.texts),
        "sentence_by_length": judge and by_length(pairs, model.tokenizer, training.max_length),
        "steps_per_second": clock.steps_per_second(),
        "curve": [row for row in rows if "dev" in row],
    }
    return model


class StepClock(keras.callbacks.Callback):
    """Times updates. The median leaves out what happens between them: tracing, evaluation, checkpoints."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())

    def steps_per_second(self):
        """Updates per second, None if there were fewer than two."""
        gaps = [after - before for before, after in zip(self.ends, self.ends[1:])]
        return 1 / statistics.median(gaps) if gaps else None
