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
import re
import shutil
import sys
import tomllib
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from keras_compress.files import DATA_FOLDER, atomic_folder

BASE = "https://raw.githubusercontent.com"
SOURCES = tomllib.loads(Path(__file__).with_name("sources.toml").read_text(encoding="utf-8"))


class DownloadError(OSError):
    """A file could not be fetched, or is not the expected one."""


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
    for path, expected in source["files"].items():
        url, file = f"{base}/{source['origin']}/{path}", staging / Path(path).name
        if not file.is_file():
            print(url, file=sys.stderr)
            fetch(url, file)
        rows = read_rows(file.read_bytes(), source)
        if (len(rows), rows_hash(rows)) != (expected["rows"], expected["sha256"]):
            file.unlink()
            raise DownloadError(
                f"{url}: the content must have {expected['rows']} rows with SHA-256 "
                f"{expected['sha256'][:12]}. Received: {len(rows)} with {rows_hash(rows)[:12]}. It was "
                "removed: run the command again, and if it fails again, the source has changed."
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
            content_range = answer.headers.get("Content-Range", "")
            if answer.status != 206 or not content_range.startswith(f"bytes {start}-"):
                start = 0  # the server sends the whole file
            with open(part, "ab" if start else "wb") as file:
                shutil.copyfileobj(answer, file)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            part.unlink()  # nothing lies beyond the part: it is whole, or of another file
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
    whole = start + int(answer.headers.get("Content-Length", size - start))
    if size != whole:
        raise DownloadError(
            f"{url}: the connection ended after {size:,} of {whole:,} bytes. "
            "Run the command again: it goes on from there."
        )
    part.replace(path)


def read_rows(content, source):
    """The rows [number of the label, text, ..] of a source file's bytes; none if they are not in the expected form."""
    names, labels, rows = source["fields"], source["labels"], []
    try:
        for line in filter(None, re.split("\r*\n", content.decode("utf-8-sig"))):
            values = line.split(source["separator"], len(names) - 1)
            if values[0] != source.get("header"):
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
    rows = sorted(rows, key=lambda row: (hashlib.sha256("\t".join(row[1:]).encode()).digest(), row))
    uses = Counter(tuple(row[1:]) for row in rows)
    chosen = [row for row in rows if uses[tuple(row[1:])] == 1][:number]
    held_out = set(map(tuple, chosen))
    return [row for row in rows if tuple(row) not in held_out], chosen
