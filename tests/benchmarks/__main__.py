"""Prints one JSON line per figure; see the package's docstring."""

import argparse
import importlib
import json
import pkgutil

import tests.benchmarks as package


def main():
    modules = [
        name for _, name, _ in pkgutil.iter_modules(package.__path__) if not name.startswith("_")
    ]
    figures = {}
    for name in modules:
        figures |= importlib.import_module(f"tests.benchmarks.{name}").FIGURES
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Figures of speed, as JSON lines."
    )
    parser.add_argument("name", nargs="*", help=f"default: all of {', '.join(figures)}")
    names = parser.parse_args().name or list(figures)
    unknown = [name for name in names if name not in figures]
    if unknown:
        parser.error(f"NAME must be one of {', '.join(figures)}. Received: {', '.join(unknown)}.")
    for name in names:
        found = figures[name]()
        for line in found if isinstance(found, list) else [found]:
            print(json.dumps(line), flush=True)


main()
