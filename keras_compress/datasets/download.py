"""Fetches the public data sets of sources.toml into data/downloads, in the TSV form that `readers` reads.

What is checked: the SHA-256 of the sorted rows (label and texts, white space normalised) of each source file. It was
computed from a copy in TSV form, not from the source files, so it covers everything that is used and no other byte.
A table in sources.toml holds
    origin, files       repository and commit; {path: split, number of rows, their SHA-256}
    separator, fields   how a line is cut, and into what; an empty name is left out
    header              the first field of a line that is left out
    labels              the names; the label of a line is a name or its number
    held_out            {split: rows to cut from train}, where the source has none
"""

import hashlib
import http.client
import sys
import time
import tomllib
import urllib.request
from collections import Counter
from pathlib import Path

from keras_compress.files import DATA_FOLDER, atomic_folder

BASE = "https://raw.githubusercontent.com"
BYTES, SECONDS = 200_000_000, 600  # of one file, at most
SOURCES = tomllib.loads(Path(__file__).with_name("sources.toml").read_text(encoding="utf-8"))


def download(name, to=None, base=BASE):
    """Fetches one set (a few MB); a set that is there already is left alone.

    Args:
        name: "sst2", "mrpc" or "tnews".
        to: the folder that gets the folder `name`; data/downloads by default.
        base: address in front of repository, commit and path.
    Returns:
        Path of the data set's folder.
    Raises:
        OSError: the server or the content is not as expected; the message says what to do.
    """
    if name not in SOURCES:
        raise ValueError(
            f"A data set to download must be one of {', '.join(SOURCES)}. Received: {name!r}."
        )
    source, folder = SOURCES[name], Path(to or DATA_FOLDER / "downloads") / name
    if folder.is_dir():
        return folder
    splits = {}
    for path, expected in source["files"].items():
        url = f"{base}/{source['origin']}/{path}"
        rows = read_rows(fetch(url), source)
        digest = rows_hash(rows)
        if digest != expected["sha256"]:
            raise OSError(
                f"{url}: the content must have {expected['rows']} rows with SHA-256 "
                f"{expected['sha256'][:12]}. Received: {len(rows)} with {digest[:12]}. "
                "Run the command again, and if it fails again, the source has changed."
            )
        splits[expected["split"]] = rows
    for split, number in source.get("held_out", {}).items():
        splits["train"], splits[split] = hold_out(splits["train"], number)
    columns = ["label", *(field for field in source["fields"] if field not in ("label", ""))]
    contents = {f"{split}.tsv": map("\t".join, [columns, *rows]) for split, rows in splits.items()}
    contents["labels.txt"] = source["labels"]
    contents["SOURCE.md"] = [
        f"# {name}\n\nFrom {source['origin']}: {', '.join(source['files'])}.",
        f"White space normalised.{' Split anew.' if 'held_out' in source else ''}\n",
        source["licence"],
    ]
    with atomic_folder(folder) as temp:
        for file, lines in contents.items():
            (temp / file).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return folder


def fetch(url):
    """The bytes at an address. Raises OSError if they do not arrive, or not all of them."""
    print(url, file=sys.stderr)
    content, end = bytearray(), time.monotonic() + SECONDS
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            while part := answer.read1(1 << 16):
                content += part
                if len(content) > BYTES or time.monotonic() > end:
                    raise OSError(f"more than {BYTES:,} bytes or {SECONDS} s")
            if answer.length:
                raise OSError(f"only {len(content):,} bytes came, {answer.length:,} did not")
            return bytes(content)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise OSError(
            f"{url}: could not be fetched ({error}). Run the command again when the connection allows; "
            "if the server does not know the file, the source has moved."
        ) from error


def read_rows(content, source):
    """The rows [number of the label, text, ..] of a source file's bytes; none if they are not in the expected form."""
    names, labels, rows = source["fields"], source["labels"], []
    try:
        for line in content.decode("utf-8-sig").split("\n"):
            line = line.rstrip("\r")
            values = line.split(source["separator"], len(names) - 1)
            if line and values[0] != source.get("header"):
                fields = dict(zip(names, values, strict=True))
                label = fields.pop("label")
                texts = [" ".join(text.split()) for name, text in fields.items() if name]
                rows.append([str(labels.index(label)) if label in labels else label, *texts])
    except ValueError:
        return []  # the check of the hash says so
    return rows


def rows_hash(rows):
    return hashlib.sha256("\n".join(sorted(map("\t".join, rows))).encode()).hexdigest()


def hold_out(rows, number):
    """Cuts off the rows with the smallest hash of their text, among texts that occur once.

    Both parts come in the order of the hashes, so that they do not depend on the order in the source.
    """

    def text(row):
        return "\t".join(row[1:])

    rows = sorted(rows, key=lambda row: (hashlib.sha256(text(row).encode()).digest(), row))
    uses = Counter(map(text, rows))
    chosen = [row for row in rows if uses[text(row)] == 1][:number]
    held_out = set(map(text, chosen))
    return [row for row in rows if text(row) not in held_out], chosen
