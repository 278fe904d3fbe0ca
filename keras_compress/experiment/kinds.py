"""Kinds of what a report reads of a cell."""

from keras_compress.method import NotNegative, check


class Cell:
    data: str
    method: str
    metric: str
    seed: int
    role: str | None
    family: str | None
    size: int | None
    files: list[dict]
    labels: list[str]
    confusion: list[list[int]]
    curve: list[dict]
    settings: list[dict]
    versions: dict[str, str]


class File:
    format: str
    bytes: NotNegative | None
    correct: str


def check_cell(cell):
    """Raises ValueError unless a cell, and each of its files, is of the kinds above."""
    for kinds, values in ((Cell, cell), *((File, file) for file in cell.get("files", ()))):
        check(kinds, {key: values[key] for key in kinds.__annotations__ if key in values})
