"""Figures of speed: `python -m tests.benchmarks [NAME ...]`. Not tests: pytest does not collect them.

Every module here has `FIGURES`, a dict name -> function; a function measures in this one process and returns a
`figure` or a list of them.
"""


def figure(name, ratio, of, against):
    """One line of output: `ratio` = `of` / `against`; these two say in words what was measured, with values."""
    return {"name": name, "ratio": round(float(ratio), 3), "of": of, "against": against}
