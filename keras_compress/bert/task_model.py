"""`TaskModel`: what every method takes and gives back. A Keras model with its tokenizer, labels and history."""

import logging
import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from tqdm import tqdm

from keras_compress import files
from keras_compress.backend import keras, tf
from keras_compress.bert import early_exit
from keras_compress.bert import stored as saved
from keras_compress.bert.answers import answers_of
from keras_compress.bert.config import BertConfig
from keras_compress.bert.encoder import INPUT_NAMES, LayerStore, build, split_name
from keras_compress.bert.labels import HeadError
from keras_compress.bert.tasks import TASKS, THRESHOLD, check_labels, encoding
from keras_compress.bert.words import words_of

log = logging.getLogger(__name__)
FORMAT = 1


class TaskModel:
    """A model that solves a task, from text to label.

    Attributes:
        model: `keras.Model`, {input_word_ids, input_mask, input_type_ids} int32 (batch, seq) -> logits, float32
            (batch, labels), (batch, seq, labels) for tagging or (batch, seq, vocabulary) for mlm.
        whole: `keras.Model` with all layers: those of `model` and, where there are exits, their classifiers.
        config: `BertConfig`. tokenizer: `Tokenizer`. task: of `tasks.TASKS`. labels: tuple of names, () for mlm.
        threshold: from which probability on a name holds, in multilabel.
        history: list of dicts, the chain of methods with settings and seeds.
        curve: list of dicts, what was measured during training. metrics: dict, what was measured afterwards.

    Args:
        seed: of the initial weights and of dropout. loaded: names of weights that are set later, so need no draw.
            store: what makes the layers.
    """

    def __init__(self, config, tokenizer, task, labels, *, seed=0, loaded=(), store=LayerStore):
        if len(tokenizer.vocab) != config.vocab_size:
            raise ValueError(
                f"The vocabulary must have `vocab_size` pieces. Received: {len(tokenizer.vocab)} pieces "
                f"and a table of {config.vocab_size} rows. Use the tokenizer's files that came with the weights, or "
                "resize the table first (`resize_token_embeddings` of `transformers`)."
            )
        self.config, self.tokenizer, self.task, self.labels = config, tokenizer, task, tuple(labels)
        check_labels(task, self.labels)
        self.history, self.curve, self.metrics, self.threshold = [], [], {}, THRESHOLD
        self.skipping = {}  # of early_exit.py
        # Seeds of neighbouring runs must not overlap: a model makes far fewer than 10,000 layers.
        layers = store(config, 10_000 * seed, loaded=loaded)
        inputs, self._outputs = build(config, task, len(labels), layers)
        if config.quantization:
            from keras_compress.bert.fake_quant import quantized_layers  # TF-MOT only if needed

            plain = keras.Model(inputs, self._outputs["logits"])
            layers = LayerStore(config, existing=quantized_layers(plain, config.quantization))
            inputs, self._outputs = build(config, task, len(labels), layers)
        logits, name = self._outputs["logits"], config.architecture
        self.model = self.whole = keras.Model(inputs, logits, name=name)
        if config.exits:
            self.whole = keras.Model(inputs, [logits, *self._outputs["exit_logits"]])
        infer = lambda inputs: self.model(inputs, training=False)
        specs = {name: tensor.type_spec for name, tensor in inputs.items()}
        self._forward = tf.function(infer, input_signature=[specs])

    @classmethod
    def from_source(cls, source, task, labels, *, seed=0):
        """A folder that `save` wrote, as it is; any other source of `load` for task and labels, if need be under a
        new head, as a method would give it one."""
        from keras_compress.bert.checkpoints import is_saved, load  # these build on this class

        wanted = {} if is_saved(source) else {"task": task, "labels": labels}
        try:
            return load(source, **wanted, seed=seed)
        except HeadError:
            if task == "mlm":
                raise
            log.info("%s: its classifier is for other classes and is left out", source)
            return load(source, **wanted, new_head=True, seed=seed)

    def features(self, names):
        """A `keras.Model` with the same weights that returns a dict of named outputs.

        Args:
            names: keys of what `encoder.build` gives; ValueError if it has no such output.
        """
        if not self._outputs.keys() >= {*names}:
            raise ValueError(
                f"Outputs must be among {', '.join(self._outputs)}. Received: {', '.join(names)}."
            )
        return keras.Model(self.model.input, {name: self._outputs[name] for name in names})

    def weights(self):
        """All weights as {"layer/variable": float array}, dropout's random state left out."""
        return weights_of(self.whole)

    def set_weights(self, tensors, only=None):
        """Sets weights by name.

        Args:
            tensors: {"layer/variable": array}; names that the model does not have are ignored.
            only: names that must be found; None = every weight of the model. ValueError names the one that is
                missing, has another shape or is quantised.
        """
        variables, way = variables_of(self.whole), " Take a config and weights that came together."
        for name in variables if only is None else only:
            if name not in tensors:
                raise ValueError(f"The weights must hold `{name}`. It is missing.{way}")
            array, shape = np.asarray(tensors[name]), tuple(variables[name].shape)
            if array.shape != shape:
                raise ValueError(f"`{name}` must have shape {shape}. Received: {array.shape}.{way}")
            if not tf.as_dtype(array.dtype).is_floating:
                raise ValueError(
                    f"`{name}` must hold floating point numbers, not be quantised. Received: {array.dtype}."
                )
            variables[name].assign(np.asarray(array, np.float32))

    def clone(self, *, seed=0, config=None):
        """An independent copy; `seed` is dropout's, `config` may change what leaves all shapes alone (dropout)."""
        return self.rebuilt(config or self.config, self.weights(), seed=seed)

    def rebuilt(self, config, weights, *, tokenizer=None, only=None, seed=0):
        """A copy of other shape: what a method makes of `weights()`, on the config (and tokenizer) that they fit.

        `only` and errors: see `set_weights`.
        """
        tokenizer = tokenizer or self.tokenizer
        copy = TaskModel(config, tokenizer, self.task, self.labels, seed=seed, loaded=weights)
        copy.set_weights(weights, only)
        copy.history, copy.curve = deepcopy(self.history), deepcopy(self.curve)
        copy.threshold = self.threshold
        return copy

    def keep_layers(self, indices, *, seed=0):
        """A copy that has only some of the layers, in the order given; embeddings and head are copied.

        Args:
            indices: layers to keep, from 0. Shared weights get copies, which is logged. Exits are left out.
        """
        indices, before = list(indices), self.config
        if before.architecture != "bert":
            raise ValueError(
                f"Only a BERT has layers to choose from. Received: a {before.architecture}."
            )
        if not indices or not {*indices} <= {*range(before.num_layers)}:
            raise ValueError(
                f"Layers to keep must be among 0 to {before.num_layers - 1}. Received: {indices}."
            )
        weights = self.weights()
        kept = {name: array for name, array in weights.items() if not name.startswith("layer_")}
        for name in weights.keys() - kept:
            layer, part, rest = split_name(name)
            for new, old in enumerate(indices):
                if before.owner(old, part) == layer:
                    kept[f"layer_{new}_{rest}"] = weights[name]
        small = self.rebuilt(before.of_layers(indices), kept, seed=seed)
        if before.sharing != "none":
            counts = self.model.count_params(), small.model.count_params()
            log.warning("layers no longer share weights: %d parameters became %d", *counts)
        return small

    def predict(self, texts, batch_size=64, max_length=None, speed=None, skipping="segments"):
        """Predicts from text.

        Args:
            texts: list of str; of (str, str) for pairs. For tagging of words separated by one space or as lists;
                Chinese without blanks is read as characters (see `words_of`).
            batch_size: texts per forward pass.
            max_length: longest input in pieces; default: all that the model can read.
            speed, skipping: with exits, 0 to 1, and how layers are skipped (`early_exit.forward`); None: all layers.
        Returns:
            float32 (n, labels), probabilities, which sum to 1 but for multilabel; for regression (n,), the numbers; for
            tagging a list of (words, labels), one per text (a word beyond `max_length` is "O" or, where that is no
            label, None). With `speed` a pair: that, and the layers at which the texts left, int32 (n,), from 1.
        Raises ValueError if the model is a masked-LM model or an answer is not finite; also see `early_exit.forward`.
        """
        kind = TASKS[self.task]
        if self.task == "mlm":
            raise ValueError(
                "`predict` needs a task with labels. Received: a masked-LM model. Load it with the labels of your data."
            )
        texts, longest = list(texts), self.config.max_position_embeddings
        max_length = min(max_length or longest, longest)
        if kind.per_token:
            texts = words_of(texts, self)
        encodings = encoding(self.task, self.tokenizer)(texts, max_length)
        if cut := sum(each.truncated for each in encodings):
            about = f"{cut} of {len(texts)} texts are longer than {max_length} pieces; their "
            warnings.warn(f"{about}{self.tokenizer.cut_part} are cut off.", stacklevel=2)
        if speed is None:
            logits = self.forward(encodings, batch_size)
        else:
            logits, layers = early_exit.forward(self, encodings, batch_size, speed, skipping)
        if not all(np.isfinite(row).all() for row in logits):
            raise ValueError(
                "The model's answers must be finite numbers. Received: NaN or infinity. Its weights are "
                "broken; if it was trained just now, lower `learning_rate`."
            )
        if not kind.per_token:
            logits = np.reshape(np.float32(logits), (len(texts), len(self.labels)))
            answers = answers_of(self.task, logits)
            if speed is not None:
                return answers, layers
            return answers[:, 0] if kind.answer == "number" else answers
        outside, tagged = "O" if "O" in self.labels else None, []
        for words, each, rows in zip(texts, encodings, logits):
            best = [self.labels[tag] for tag in rows.argmax(-1)]
            tags = [best[start] if start >= 0 else outside for start in each.word_starts]
            tagged.append((words, tags))
        return tagged

    def forward(self, encodings, batch_size=64, run=None):
        """Logits of encoded texts, in their order: list of float32 arrays, (classes,) or (seq, labels) each. `run`: what
        makes rows of inputs, instead of the model."""
        run = run or (lambda inputs: self._forward(inputs).numpy())
        rows, by_length = {}, sorted(enumerate(encodings), key=lambda pair: len(pair[1].ids))
        starts = range(0, len(by_length), batch_size)
        for first in tqdm(starts, "batches", delay=5, leave=False, disable=None):
            places, batch = zip(*by_length[first : first + batch_size])
            rows |= zip(places, run(self.pad(batch)))
        return [rows[place] for place in range(len(encodings))]

    def pad(self, encodings, length=None):
        """Encodings as the model's inputs: dict of int32 (n, `length`); default: the longest of them."""
        length = length or max(len(e.ids) for e in encodings)
        inputs = np.zeros((3, len(encodings), length), np.int32)
        inputs[0] = self.tokenizer.pad_id
        for row, e in enumerate(encodings):
            inputs[:, row, : len(e.ids)] = e.ids, np.ones_like(e.ids), e.type_ids
        return dict(zip(INPUT_NAMES, inputs))

    def save(self, folder, overwrite=False):
        """Writes a folder of plain files, without pickles or code, whole or not at all; over files only with `overwrite`."""
        lowercase, switches = self.tokenizer.lowercase, self.tokenizer.switches()
        stored = {"keras_compress": FORMAT, "task": self.task, "lowercase": lowercase}
        stored |= {"tokenizer": switches} if switches else {}
        stored |= {"threshold": self.threshold} if TASKS[self.task].answer == "sigmoid" else {}
        stored |= {"config": self.config.to_dict(), "history": self.history}
        with files.atomic_folder(folder, overwrite, saved.FILES[0], saved.FILES) as part:
            (part / "model.safetensors").write_bytes(save(self.weights()))
            self.tokenizer.save(part / "vocab.txt")
            (part / "labels.txt").write_text("".join(f"{x}\n" for x in self.labels), "utf-8")
            files.write_json(part / "metrics.json", self.metrics)
            saved.write_curve(part / "history.csv", self.curve)
            beside = [part / name for name in saved.FILES[1:]]
            files.write_sealed(part / "config.json", stored, beside)

    @classmethod
    def load(cls, folder):
        """Reads what `save` wrote. ValueError names the file that is missing, damaged or does not fit the others."""
        folder = Path(folder)
        for name in saved.FILES:
            files.one_of(folder, name)
        try:
            stored = files.read_json(folder / "config.json", beside=True)
            if (version := stored.get("keras_compress")) != FORMAT:
                raise ValueError(f"`keras_compress` must be {FORMAT}. Received: {version!r}.")
            saved.check_kinds(stored)
            config = BertConfig.from_dict(stored["config"])
            tokenizer = saved.saved_tokenizer(folder, stored)
            labels = saved.read_labels(folder)
            tensors = files.read_safetensors(folder / "model.safetensors")
            saved.check_layers(config, tensors)
            model = cls(config, tokenizer, stored["task"], labels, loaded=tensors)
            model.set_weights(tensors)
            if other := sorted(tensors.keys() - variables_of(model.whole).keys()):
                raise ValueError(
                    f"config.json must describe all of model.safetensors. Received: {len(other)} weights more, "
                    f"{', '.join(other[:3])}. Restore the file that was changed."
                )
            model.metrics = files.read_json(folder / "metrics.json")
            model.history, model.threshold = stored["history"], stored.get("threshold", THRESHOLD)
            model.curve = saved.read_curve(folder / "history.csv")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder}: {' '.join(str(error).split())}") from error
        return model


def weights_of(model):
    """All weights of a flat `keras.Model` as {"layer/variable": float array}, dropout's random state left out."""
    return {name: np.asarray(variable) for name, variable in variables_of(model).items()}


def variables_of(model):
    """{"layer/variable": variable} of all weights of a flat `keras.Model`, dropout's random state left out."""
    return {
        f"{layer.name}/{v.name.split('/')[-1].split(':')[0]}": v
        for layer in model.layers
        for v in layer.weights
        if v.dtype.is_floating  # dropout's random state is an integer
    }
