"""JSON and TOML may be nested DEEPEST deep: all of ours is far below, and what is deeper cannot be hashed, copied or told."""

import re
import tomllib

DEEPEST = 100
# Python's reader of TOML takes seconds for a key of 10,000 parts, and four times as long for twice as many
PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
LONG_KEY = re.compile(rf"(?m)(?:^[ \t]*+\[{{0,2}}|[{{,])[ \t]*+(?:{PART}\.[ \t]*+){{{DEEPEST}}}")


def toml_of(text):
    """The dict that TOML holds. Raises ValueError if it is none, or nested too deep."""
    if LONG_KEY.search(text):
        raise ValueError(f"a key must have at most {DEEPEST} parts")
    try:
        value = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(f"lists and tables must be nested at most {DEEPEST} deep") from error
    check_depth(value)
    return value


def check_depth(value):
    """Raises ValueError if lists and dicts are nested too deep."""
    level = [[value]]
    for _ in range(DEEPEST + 1):
        nested = (each.values() if isinstance(each, dict) else each for each in level)
        level = [one for each in nested for one in each if isinstance(one, dict | list)]
    if level:
        raise ValueError(f"lists and objects must be nested at most {DEEPEST} deep")
