"""Masked-LM training: the head that fills in words, or the whole encoder. Devlin et al., 2019, Sec. 3.1, Task 1."""
from keras_compress.backend import keras, tf
from keras_compress.bert.encoder import LayerStore, make_inputs, mlm_head
from keras_compress.bert.layers import register
from keras_compress.bert.weights import with_head
from keras_compress.datasets.masking import check_mask_piece, each_piece, mask_words
from keras_compress.settings import Training
from keras_compress.training import adamw, fit, stream

TRAIN = ("head", "all")


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
        return mask_words(inputs, words, tokenizer, tf.stack([tf.cast(seed, tf.int64), step]), share)

    return lambda first, last: stream(dataset, tokenizer, training, seed, first, last, words=whole_word) \
        .enumerate(first).map(lambda step, batch: mask(step, *batch))


def masked_accuracy(task_model, dataset, training, share=0.15, num_texts=1000):
    """Share of the masked pieces of dev that the model guesses; the masks are the same at every call."""
    right, total = 0, 0
    few = dataset.subset(num_dev=num_texts)
    few_batches = few.batches("dev", task_model.tokenizer, training.batch_size, training.max_length)
    model = choosing_model(task_model)
    for step, (inputs, _) in enumerate(few_batches):
        words = each_piece(inputs, task_model.tokenizer)
        inputs, targets = mask_words(inputs, words, task_model.tokenizer, (0, step), share)
        found = tf.argmax(model({**inputs, "targets": targets}, training=False)["logits"], -1, output_type=tf.int32)
        right += int(tf.reduce_sum(tf.cast(found == targets[targets >= 0], tf.int32)))
        total += len(found)
    return right / max(total, 1)


def choosing_model(task_model):
    """A `keras.Model` on the same layers that scores some tokens alone, since all would cost several times as much.

    Inputs: the usual ones and `targets` (batch, seq), -1 where a token is left out.
    Returns: dict of `logits` (chosen tokens, vocabulary) and `hidden` (batch, seq, hidden), the last hidden states.
    """
    targets = keras.Input((None,), dtype="int32", name="targets")
    inputs = make_inputs()
    hidden = task_model.features(["hidden_states"])(inputs)["hidden_states"][-1]
    get = LayerStore(task_model.config, existing=task_model.model.layers)
    logits = mlm_head(get, TakeTokens(name="take_tokens")(hidden, targets >= 0))
    return keras.Model({**inputs, "targets": targets}, {"logits": logits, "hidden": hidden})


def masked_lm(task_model, dataset, *, seed=0, training=Training(), train="all", whole_word=False, mask_share=0.15):
    """Trains a masked-LM model on text.

    Args:
        task_model: `TaskModel`; one of another task gets a new masked-LM head.
        dataset: `Dataset`; labels are not looked at.
        train: "head" (with the encoder as it is, word table included) or "all".
        whole_word: mask words as a whole. mask_share: chance of a word.
    Returns:
        `TaskModel` of task "mlm".
    Raises:
        ValueError: if the vocabulary has no [MASK], or whole words are asked for of pairs.
    """
    if whole_word and dataset.task in ("matching", "tagging"):
        raise ValueError("`whole_word` needs single texts. Received: "
                         f"{dataset.task} data ({dataset.name}). Leave it out.")
    if train not in TRAIN:
        raise ValueError(f"`train` must be one of {', '.join(TRAIN)}. Received: {train!r}.")
    training = training if dataset.dev else training.replace(evaluations=0, patience=None)
    with training.scope():
        model = task_model.clone(seed=seed) if task_model.task == "mlm" else with_head(task_model, "mlm", (), seed=seed)
        for layer in model.model.layers:
            layer.trainable = train == "all" or layer.name.startswith("mlm_")
        chosen = choosing_model(model)
        trained = keras.Model(chosen.input, chosen.output["logits"])
        num_steps = training.num_steps(len(dataset.train.texts))
        trained.compile(adamw(training, num_steps), masked_loss, jit_compile=False)
    batches = masked_stream(dataset, model.tokenizer, training, seed, whole_word=whole_word, share=mask_share)
    model.curve += fit(trained, model, dataset, training, seed=seed, stage="mlm", num_steps=num_steps,
                       batches=lambda first, last: batches(first, last).map(
                           lambda inputs, targets: ({**inputs, "targets": targets}, targets)),
                       measure=lambda: masked_accuracy(model, dataset, training, mask_share))
    model.model.trainable = True
    model.history.append({"method": "masked_lm", "seed": seed, "num_steps": num_steps, "train": train,
                          "whole_word": whole_word, "mask_share": mask_share, "training": training.settings()})
    return model


@register
def masked_loss(targets, logits):
    """Cross-entropy in nats, mean over masked tokens. (batch, seq) with -1, (masked tokens, vocabulary) -> scalar."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets[targets >= 0], logits)
    return tf.math.divide_no_nan(tf.reduce_sum(losses), tf.cast(tf.size(losses), tf.float32))
