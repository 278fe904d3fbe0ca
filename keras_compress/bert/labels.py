"""Whether the classes of a model and of data are the same, and which is which: by name, never by chance."""

import logging
import re

log = logging.getLogger(__name__)


class HeadError(ValueError):
    """A trained head is for another task or other classes."""


def unnamed(count):
    """The names of a trained classifier whose files do not name its classes."""
    return tuple(f"LABEL_{k}" for k in range(count))


def places(labels, names):
    """The place of each label of the data among a model's names: by name, in any case.

    Labels that are numbers only are places, as `id2label` in config.json and the lines of labels.txt number the names,
    unless they may be meant for other numbers in these ("1 star", "2 stars").

    Raises:
        HeadError: if a label has no place. The way out keeps the trained head.
    """
    for form in (str, str.casefold):
        known = {form(name): place for place, name in enumerate(names)}
        found = [known.get(form(label)) for label in labels]
        if len(known) == len(names) and None not in found and len({*found}) == len(found):
            return found
    numbers = [str(place) for place in range(len(names))]
    in_names = [number for name in names for number in re.findall(r"\d+", name)]
    is_unclear = len(in_names) == len(names) and in_names != numbers and {*labels} <= {*in_names}
    if {*labels} <= {*numbers} and not is_unclear:
        return [numbers.index(label) for label in labels]
    if names and tuple(names) == unnamed(len(names)):
        raise HeadError(
            f"Which class is which must be written down: the model calls its {len(names)} classes {names[0]}, "
            f"{names[1]}, ... only. Received: {', '.join(labels[:8])} ({len(labels)}). Write all "
            f"{len(names)} into the data's labels.txt in the order of the model's training, or pass them so: `labels` (`--labels`)."
        )
    other = [label for label in labels if label.casefold() not in {*map(str.casefold, names)}]
    raise HeadError(
        f"The data's classes must be among the model's, by name. Received: {', '.join(other[:8])}; the model "
        f"has {', '.join(names[:8])}. Write a labels.txt with the model's names in its order, where rows hold "
        "numbers; else rename them in the data, or in the model's config.json (`id2label`) or labels.txt. "
        "`new_head` (`--new-head`) would train another classifier."
    )


def known_names(name, labels, known, ordered):
    """The names of a trained head's classes: its own, unless it has none and `labels` are in its order."""
    if labels is None or tuple(labels) == known:
        return known
    labels = tuple(labels)
    if known and known == unnamed(len(known)):
        if not ordered:
            return known
        if len(labels) == len(known):
            log.info(
                "%s: its classes have no names; in this order they are %s", name, ", ".join(labels)
            )
            return labels
    places(labels, known)
    return known
