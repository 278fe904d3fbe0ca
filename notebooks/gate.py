"""Reads an answer before it runs, and says what a person should look at. It decides nothing."""

import ast
import types

PACKAGES = ("keras_compress", "mobile_export")
HARMLESS = {"collections", "functools", "itertools", "math", "operator", "typing", "unicodedata"}
SAME_NAME = {("numpy", "np"), ("tensorflow", "tf")}
SUSPICIOUS = (
    "__import__ breakpoint compile delattr eval exec getattr globals input locals open setattr vars"
).split()


def text(cell):
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def dotted(node):
    """ "np.linalg.svd" of its node; None for what is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return None


def chains(tree):
    """The longest chains of names: {dotted name: whether it is only read}."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    nodes = [node for node in ast.walk(tree) if id(node) not in inner and dotted(node)]
    return [(dotted(node), isinstance(node.ctx, ast.Load)) for node in nodes]


def bound(tree):
    """Names that the cell itself gives a meaning: variables of the cell, functions, classes, imports."""
    names = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [
                part.id for t in targets for part in ast.walk(t) if isinstance(part, ast.Name)
            ]
    return names


def imported(tree):
    """[(module or module.name, name here)] of all imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            yield from ((start + alias.name, alias.asname) for alias in node.names)


def of_package(thing):
    name = (
        thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", "")
    )
    return str(name).split(".")[0] in PACKAGES


def flags(answer, model, names, banned):
    """What a person should look at: list of str.

    Args:
        answer, model: sources of the student's cell and of the lesson's. names: what the lesson imports.
        banned: dotted names, each with all below it.
    """
    try:
        tree = ast.parse(answer)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # running it will tell
    allowed = {name for name, _ in chains(ast.parse(model))}
    own = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)} | {
        name for name, read in chains(tree) if not read
    }
    found = []
    for name, read in chains(tree):
        root, dot, _ = name.partition(".")
        thing = names.get(root)
        if not read and dot and (thing is not None or root == "self"):
            found.append(f"sets {name}")
        elif name in allowed or root in own or root not in names and root not in SUSPICIOUS:
            continue
        elif (
            of_package(thing) or root in SUSPICIOUS or isinstance(names.get(name), types.ModuleType)
        ):
            found.append(f"uses {name}")
        elif any(f"{name}.".startswith(f"{ban}.") for ban in banned):
            found.append(f"uses {name}, which is banned here")
    for node in ast.walk(tree):
        name = getattr(node, "attr", None) or getattr(node, "name", None) or getattr(node, "id", "")
        if isinstance(name, str) and name.startswith("__") and name not in SUSPICIOUS:
            found.append(f"uses {name}")
    for name, here in imported(tree):
        if name.split(".")[0] not in HARMLESS and (name, here) not in SAME_NAME:
            found.append(f"imports {name}")
    found += [f"replaces {name}" for name in bound(tree) if name in names]
    return list(dict.fromkeys(found))
