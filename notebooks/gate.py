"""Reads an answer before it runs, and says what a person should look at. It decides nothing."""

import ast
import types

PACKAGES = ("keras_compress", "mobile_export")
HARMLESS = {"collections", "functools", "itertools", "math", "operator", "typing", "unicodedata"}
SAME_NAME = {("numpy", "np"), ("tensorflow", "tf")}
SUSPICIOUS = (
    "breakpoint compile delattr eval exec getattr globals input locals open setattr vars".split()
)


def dotted(node):
    """`np.linalg.svd` as text; "" for what is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    before = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return before and f"{before}.{node.attr}"


def chains(tree):
    """[(longest chain of names, whether it is only read)]."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    nodes = [node for node in ast.walk(tree) if dotted(node) and id(node) not in inner]
    return [(dotted(node), isinstance(node.ctx, ast.Load)) for node in nodes]


def belongs(thing):
    """Whether a module, class or function is the package's."""
    name = (
        thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", "")
    )
    return str(name).split(".")[0] in PACKAGES


def flags(answer, model, names, banned):
    """What a person should look at: list of str.

    Args:
        answer, model: sources of the student's cell and of the lesson's. names: what the lesson imports.
        banned: dotted names; each bans all below it.
    """
    try:
        tree = ast.parse(answer)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # running it will tell
    allowed = {name for name, _ in chains(ast.parse(model))}
    own = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    own |= {name for name, read in chains(tree) if not read}
    found = []
    for name, read in chains(tree):
        root, *rest = name.split(".")
        if rest and not read and root in names:
            found.append(f"sets {name}")
        elif name in allowed or root in own:
            continue
        elif (
            root in SUSPICIOUS
            or belongs(names.get(root))
            or isinstance(names.get(name), types.ModuleType)
        ):
            found.append(f"uses {name}")  # of a module alone: its functions under another name
        elif any(f"{name}.".startswith(f"{ban}.") for ban in banned):
            found.append(f"uses {name}, which is banned here")
    for node in ast.walk(tree):
        name = getattr(node, "attr", "") or getattr(node, "name", "") or getattr(node, "id", "")
        if str(name).startswith("__"):
            found.append(f"uses {name}")
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            imports = [(module + alias.name, alias.asname) for alias in node.names]
            found += [
                f"imports {name}"
                for name, here in imports
                if name.split(".")[0] not in HARMLESS and (name, here) not in SAME_NAME
            ]
    top = {getattr(node, "name", "") for node in tree.body}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            top |= {name for name, read in chains(node) if not read}
    found += [f"replaces {name}" for name in sorted(top & {*names})]
    return list(dict.fromkeys(found))
