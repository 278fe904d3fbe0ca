"""What to know of data before training on them: classes, lengths, unknown words, texts that occur twice."""

import warnings
from collections import Counter, defaultdict

import numpy as np

from keras_compress.bert.tasks import TASKS, encoding
from keras_compress.bert.words import WORD

LONGEST = 10**6  # pieces: no text is cut
NUM_EXAMPLES, NUM_CLASSES = 5, 40  # how many are shown


def facts(dataset, tokenizer):
    """Figures of a data set.

    Args:
        dataset: `Dataset`. tokenizer: `Tokenizer` of the model that is to read it.
    Returns:
        dict: `classes` ({name: {split: texts, for tagging words}}; for regression also `scores`, {split: [lowest,
        median, highest]}), `classes_without_training` (names), `pieces`
        ({split: {"median", "p95", "longest"}}, special pieces included), `unknown_words` (`share` of all words, 0-1,
        and `examples`, the most frequent), `repeated` ({split: texts that stood there before}), `also_in_train`
        ({split: texts}) and `contradictory` (texts that occur with different labels).
    """
    splits = {name: split for name, split in dataset.splits().items() if split}
    in_train = {*dataset.train.texts}
    return {
        **_classes(dataset, splits),
        "pieces": {name: _lengths(dataset, split, tokenizer) for name, split in splits.items()},
        "unknown_words": _unknown(splits.values(), tokenizer),
        "repeated": {k: len(split.texts) - len({*split.texts}) for k, split in splits.items()},
        "also_in_train": {
            k: sum(text in in_train for text in split.texts)
            for k, split in splits.items()
            if k != "train"
        },
        "contradictory": _contradictory(dataset, splits.values()),
    }


def _classes(dataset, splits):
    none = {"classes": {}, "classes_without_training": []}
    if TASKS[dataset.task].answer == "number":
        spread = {k: np.percentile(split.labels, [0, 50, 100]) for k, split in splits.items()}
        return {**none, "scores": {name: three.tolist() for name, three in spread.items()}}
    if dataset.task == "unlabelled":
        return none
    counts = {
        name: np.bincount(np.int64(np.hstack(split.labels)), minlength=len(dataset.labels)).tolist()
        for name, split in splits.items()
    }
    classes = {
        label: {name: count[index] for name, count in counts.items()}
        for index, label in enumerate(dataset.labels)
    }
    untrained = [label for label, numbers in classes.items() if not numbers["train"]]
    return {"classes": classes, "classes_without_training": untrained}


def _lengths(dataset, split, tokenizer):
    encodings = encoding(dataset.task, tokenizer)(split.texts, LONGEST)
    lengths = [len(each.ids) for each in encodings]
    median, p95 = np.percentile(lengths, [50, 95], method="higher").tolist()
    return {"median": median, "p95": p95, "longest": max(lengths)}


def _unknown(splits, tokenizer):
    words = Counter()
    for split in splits:
        for text in split.texts:
            words.update(WORD.findall(text if isinstance(text, str) else " ".join(text)))
    unknown, unknown_id = Counter(), tokenizer.ids["[UNK]"]
    with warnings.catch_warnings():  # of a list of words, where shares would mislead
        warnings.simplefilter("ignore")
        encodings = tokenizer.encode(list(words), LONGEST)
    for (word, number), each in zip(words.items(), encodings):
        if unknown_id in each.ids:
            unknown[word] = number
    examples = [word for word, _ in unknown.most_common(NUM_EXAMPLES)]
    return {"share": unknown.total() / max(words.total(), 1), "examples": examples}


def _contradictory(dataset, splits):
    if dataset.task == "unlabelled":
        return 0
    labels = defaultdict(set)
    for split in splits:
        for text, label in zip(split.texts, split.labels):
            labels[text].add(str(label))
    return sum(len(different) > 1 for different in labels.values())


def in_words(figures, tokenizer_name):
    """Lines that tell the figures of `facts`."""

    def row(numbers):
        return ", ".join(f"{number:,} in {name}" for name, number in numbers.items())

    lines = ["classes:"] if figures["classes"] else []
    classes = list(figures["classes"].items())
    lines += [f"  {name}: {row(numbers)}" for name, numbers in classes[:NUM_CLASSES]]
    if len(classes) > NUM_CLASSES:
        lines.append(f"  ... and {len(classes) - NUM_CLASSES} more")
    if figures["classes_without_training"]:
        names = ", ".join(figures["classes_without_training"])
        lines.append(f"classes without a training text: {names}")
    form = "scores of {}: {:g} to {:g} to {:g} (lowest, median, highest)"
    lines += [form.format(name, *three) for name, three in figures.get("scores", {}).items()]
    lines.append(f"lengths in pieces of {tokenizer_name}:")
    form = "  {}: median {median:,}, 95 % up to {p95:,}, longest {longest:,}"
    lines += [form.format(name, **numbers) for name, numbers in figures["pieces"].items()]
    unknown = figures["unknown_words"]
    examples = f", such as {' '.join(unknown['examples'])}" if unknown["examples"] else ""
    lines.append(f"words unknown to {tokenizer_name}: {unknown['share']:.2%}{examples}")
    lines.append(f"texts that occur twice: {row(figures['repeated'])}")
    if figures["also_in_train"]:
        lines.append(f"texts that train has, too: {row(figures['also_in_train'])}")
    if figures["contradictory"]:
        lines.append(f"texts with different labels: {figures['contradictory']:,}")
    return lines
