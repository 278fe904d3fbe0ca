"""Prose that is on every machine: the documentation strings of Python, NumPy, SciPy and TensorFlow.

They are read from the source files with `ast`; no library is imported and nothing of it runs. Two sets are made:
- "unlabelled": every documented object is a document of its sentences;
- "classification": one sentence each; the label is the topic, which follows from the module. Objects that share a
  sentence but for one replaced word are in the same split, and a sentence that occurs twice is used once.
The content follows the installed versions and is the same on every run; `Dataset.summary` has counts and hash.
"""

import ast
import collections
import hashlib
import importlib.metadata
import importlib.util
import inspect
import itertools
import json
import platform
import re
import sysconfig
from pathlib import Path

from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.files import DATA_FOLDER, read_json, write_sealed

LIBRARIES = ("numpy", "scipy", "tensorflow")
SKIP = set(
    "test tests testing site-packages idlelib lib2to3 ensurepip turtledemo pydoc_data _api include "
    "keras compiler debug tools distutils f2py _lib".split()
)
TOPICS = {  # topic: dotted beginnings of its modules
    "arrays": "numpy.lib numpy._core numpy.ma",
    "concurrency": "asyncio threading multiprocessing concurrent queue subprocess selectors sched contextlib",
    "distribution": "tensorflow.distribute",
    "images and space": "scipy.ndimage scipy.spatial scipy.cluster tensorflow.ops.image_ops_impl",
    "input pipelines": "tensorflow.data",
    "interpolation and integration": "scipy.interpolate scipy.integrate",
    "linear algebra": "scipy.linalg numpy.linalg tensorflow.ops.linalg",
    "mail and web": "email http urllib mailbox smtplib imaplib poplib ftplib xmlrpc wsgiref socketserver ssl",
    "optimization": "scipy.optimize",
    "programs and graphs": "tensorflow.framework tensorflow.eager",
    "saving": "tensorflow.saved_model tensorflow.checkpoint tensorflow.trackable",
    "signals": "scipy.signal scipy.fft scipy.fftpack numpy.fft",
    "sparse matrices": "scipy.sparse",
    "special functions": "scipy.special",
    "statistics": "scipy.stats statistics",
    "testing and logging": "unittest doctest pdb bdb trace traceback inspect logging pydoc",
    "windows and widgets": "tkinter turtle",
}
SIZES = {"train": 360, "dev": 60, "test": 90}  # sentences per topic, at most
MARKUP = (
    (re.compile(r":[a-z:]+:(?=`)"), ""),  # :func:`x` -> `x`
    (re.compile(r"\[([^\]]+)\]\s?\([^)]*\)"), r"\1"),  # [x](url) -> x
    (re.compile(r"[`*]+|\[[0-9]+\]_?"), ""),
    (re.compile(r"\s+"), " "),
)
SENTENCE_END = re.compile(r"(?<=[a-z0-9)][.!?]) (?=[A-Z\"'(])")
NOT_PROSE = re.compile(r"^(\s|>>>|\.\.|[|+@-]|[-=~^*_]{3,})", re.M)  # beginnings of lines
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def load(task="classification", folders=None):
    """Makes the topic set (task "classification") or the corpus (task "unlabelled").

    Args:
        folders: list of (dotted prefix, folder) instead of the installed libraries.
    Returns:
        `Dataset`; the corpus has train and dev.
    """
    if task not in ("classification", "unlabelled"):
        raise ValueError(
            f"`task` of apidocs must be classification or unlabelled. Received: {task!r}."
        )
    objects = _installed() if folders is None else _scan(folders)
    return _topics(objects) if task == "classification" else _corpus(objects)


def _corpus(objects):
    splits, seen = {"train": Split([], []), "dev": Split([], [])}, set()
    for split, (split_texts, documents) in splits.items():
        for document, (name, texts) in enumerate(objects):
            # A document of train has a new sentence; one of dev shares none with train.
            new = not seen.issuperset(texts) if split == "train" else seen.isdisjoint(texts)
            if new and (_share(name) < 0.05) == (split == "dev"):
                split_texts += texts
                documents += [document] * len(texts)
                seen.update(texts)
    return Dataset("apidocs", "unlabelled", (), **splits)


def _topics(objects):
    names = tuple(TOPICS)
    topics = {module: topic for topic in TOPICS for module in TOPICS[topic].split()}
    uses, group = collections.defaultdict(set), {}  # words -> topics; object or words -> its parent

    def root(node):
        while group.setdefault(node, node) != node:
            group[node] = node = group[group[node]]
        return node

    labelled = []
    for name, texts in objects:
        modules = itertools.accumulate(name.split("."), "{}.{}".format)
        topic = next((topics[module] for module in modules if module in topics), None)
        for sentence in texts if topic else ():
            words = tuple(re.findall("[a-z]+", sentence.lower()))
            if words not in uses:
                labelled.append((name, topic, sentence, words))
                for i in range(len(words)):
                    group[root((*words[:i], "*", *words[i + 1 :]))] = root(name)
            uses[words].add(topic)

    splits, taken = {split: Split([], []) for split in SIZES}, collections.Counter()
    for name, topic, sentence, words in sorted(labelled, key=lambda row: _share(row[2])):
        share = _share(root(name))
        split = "train" if share < 0.7 else "dev" if share < 0.82 else "test"
        if len(uses[words]) == 1 and taken[split, topic] < SIZES[split]:
            taken[split, topic] += 1
            splits[split].texts.append(sentence)
            splits[split].labels.append(names.index(topic))
    return Dataset("apidocs", "classification", names, **splits)


def _share(text):
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _installed():
    """The scan of the installed libraries, kept in data/cache until a version or this file changes."""
    versions = [platform.python_version(), *map(importlib.metadata.version, LIBRARIES)]
    key = hashlib.sha256(json.dumps([versions, Path(__file__).read_text()]).encode()).hexdigest()
    cache = DATA_FOLDER / "cache" / f"apidocs-{key[:12]}.json"
    if not cache.is_file():
        write_sealed(cache, {"objects": _scan(library_folders())})
    return read_json(cache)["objects"]


def _scan(folders):
    """[(dotted name, sentences)] of every object with at least one sentence."""
    documented = (row for folder in folders for row in documented_objects(*folder))
    return [(name, texts) for name, doc in documented if (texts := sentences(doc))]


def library_folders():
    """(dotted prefix, folder) of each library, looked up without importing it."""
    yield "", Path(sysconfig.get_path("stdlib"))
    for name in LIBRARIES:
        yield f"{name}.", Path(importlib.util.find_spec(name).origin).parent


def documented_objects(prefix, folder):
    """Yields (dotted name, documentation string) of everything documented under a folder; runs none of its code."""
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder).with_suffix("").parts
        if SKIP.intersection(parts) or parts[-1].startswith("gen_"):
            continue
        module = ".".join(part for part in parts if part != "__init__").removeprefix("python.")
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):  # a template or a broken file
            continue
        yield from _documented(tree, prefix + module)


def _documented(node, name):
    """Yields (dotted name, documentation string) of a module or class and what it defines, outside functions."""
    if doc := ast.get_docstring(node, clean=False):
        yield name, doc
    for child in () if isinstance(node, FUNCTIONS) else ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, *FUNCTIONS)):
            yield from _documented(child, f"{name}.{child.name}")
        match child:  # NumPy and SciPy: add_newdoc("module", "name", "doc")
            case ast.Expr(
                ast.Call(ast.Name("add_newdoc"), [*_, ast.Constant(of), ast.Constant(doc)])
            ):
                yield f"{name}.{of}", doc


def sentences(doc):
    """The sentences of a documentation string's paragraphs; examples, tables and argument lists are left out."""
    kept = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(doc)):
        if NOT_PROSE.search(block):
            continue
        for pattern, new in MARKUP:
            block = pattern.sub(new, block)
        for sentence in SENTENCE_END.split(block.strip()):
            letters = sum(c.isalpha() or c == " " for c in sentence)
            is_prose = letters > 0.85 * len(sentence) and sentence[-1] in ".!?"
            if is_prose and 4 <= sentence.count(" ") < 60:
                kept.append(sentence)
    return kept
