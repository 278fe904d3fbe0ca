"""What tags mark: entities, in the schemes IO, BIO, BIOES, BMES and BILOU, or a property of each word.

A tag of a scheme is O (outside), a prefix and a type (B-time), or a prefix alone where there is one type (B). In the IO
scheme the prefix may be missing (time). Tags of no scheme, such as parts of speech, mark no entities.

Some taggers have classes for what is no word, as the BERT-NER scripts of 2018: X (a word's further pieces), [CLS], [SEP],
padding. Beside tags of a scheme they are outside.
"""

import re

SCHEME = re.compile(r"([OBIESMLU])(?:(?<!O)[-_](\S+))?")
BARE_TYPE = re.compile(r"[^\W_]{2,}")
INSIDE = "IMEL"  # prefixes that go on with an entity
LAST = "ESLUO"  # after these none goes on
NO_WORD = {"X", "[CLS]", "[SEP]", "[PAD]", "<PAD>", "<pad>", "PAD", "<START>", "<STOP>"}


def marks_entities(labels):
    """Whether a set of tags marks entities, and does not only say something about each word."""
    labels = {*labels} - NO_WORD if "O" in labels else labels
    return all(map(SCHEME.fullmatch, labels)) or (
        "O" in labels and all(SCHEME.fullmatch(tag) or BARE_TYPE.fullmatch(tag) for tag in labels)
    )


def entities(tags):
    """Set of (type, first, last + 1) of one sentence, by the rules of conlleval: an I or E after O, after an entity's
    end, or after another type, starts an entity as B does."""
    spans, start, before, kind_before = set(), 0, "O", None
    for position, tag in enumerate([*tags, "O"]):
        tag = "O" if tag in NO_WORD else tag
        match = SCHEME.fullmatch(tag)
        prefix, kind = match.groups() if match else ("I", tag)
        if prefix not in INSIDE or kind != kind_before or before in LAST:
            if before != "O":
                spans.add((kind_before, start, position))
            start = position
        before, kind_before = prefix, kind
    return spans


def entity_counts(gold, predicted):
    """[right, predicted, gold] numbers of entities in one sentence; right = same type, first and last word."""
    gold, predicted = entities(gold), entities(predicted)
    return [len(gold & predicted), len(predicted), len(gold)]


def word_counts(gold, predicted):
    """[right, predicted, gold] numbers of tags in one sentence: their F1 is the accuracy of words."""
    right = sum(one == other for one, other in zip(gold, predicted, strict=True))
    return [right, len(predicted), len(gold)]
