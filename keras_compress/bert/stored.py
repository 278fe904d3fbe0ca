"""What a saved model's folder holds beside weights and names: its files, what config.json may hold, history.csv."""

import contextlib
import csv
from itertools import chain

from keras_compress.files import read_text
from keras_compress.method import Share, check

FILES = "config.json model.safetensors vocab.txt labels.txt metrics.json history.csv".split()


class Stored:
    """Kinds of what config.json holds beside the config."""

    lowercase: bool
    history: list[dict]
    threshold: Share


def check_kinds(stored):
    """Raises ValueError unless what config.json holds is of the kinds above."""
    check(Stored, {key: stored[key] for key in Stored.__annotations__ if key in stored})


def read_labels(folder):
    """The names in labels.txt; an editor may have added a byte order mark or Windows line ends."""
    names = read_text(folder / "labels.txt").replace("\r\n", "\n")
    return list(filter(None, names.split("\n")))


def check_layers(config, tensors):
    """Raises ValueError, before layers are built, if a config has more of them than there are weights."""
    if config.sharing == "none" and config.num_layers > len(tensors):
        raise ValueError(
            f"Each layer must have weights. Received: {config.num_layers} layers in config.json and {len(tensors)} "
            "weights in model.safetensors. Restore the file that was changed."
        )


def saved_tokenizer(folder, stored):
    """The tokenizer of a folder that `save` wrote; `stored`: what its config.json holds."""
    from keras_compress.bert.tokenizer import Tokenizer, read_vocab  # verbs read FILES without it

    vocab = read_vocab(folder / "vocab.txt", keep=True)
    return Tokenizer(vocab, stored["lowercase"], **stored.get("tokenizer", {}))


def write_curve(path, curve):
    """Writes what was measured during training, a list of dicts, as CSV."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(chain(*curve)))
        writer.writeheader()
        writer.writerows(curve)


def read_curve(path):
    """What `write_curve` wrote."""
    with open(path, encoding="utf-8", newline="") as file:
        return [
            {k: _value(cell) for k, cell in row.items() if cell} for row in csv.DictReader(file)
        ]


def _value(cell):
    """What a cell holds: int, float or text."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(cell)
    return cell
