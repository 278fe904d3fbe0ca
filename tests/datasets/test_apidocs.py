"""Documentation strings as data: on a small made package and on one real module of the standard library."""

import sysconfig
from pathlib import Path

import pytest

from keras_compress.datasets import apidocs

PACKAGE = {
    "stats/__init__.py": '"""Draws random numbers from many laws.\n\nIt fits them.\n"""\nraise SystemExit("was run")\n',
    "stats/laws.py": '''
def mean(x):
    """Computes the mean of the given sample.

    The `sample` is an :class:`array` of numbers. It must hold at least one.

    Parameters
    ----------
    x : array
        Not prose and therefore not to be read at all.

    >>> mean([1, 2])
    """
class Law:
    def draw(self):
        "Draws one number from this law of chance."
add_newdoc("stats", "ufunc", "Adds two numbers one by one here.")
''',
    "optimize/a.py": 'def f(x):\n    """Computes the mode of the given sample. Searches a minimum by the method."""\n',
    "optimize/broken.py": "def (:",
    "optimize/tests/t.py": '"""This is a test and is not to be read."""',
}


@pytest.fixture
def folders(tmp_path):
    for name, source in PACKAGE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    return [("scipy.", tmp_path)]


def test_sentences_of_documented_objects_without_running_them(folders):
    found = {name: apidocs.sentences(doc) for name, doc in apidocs.documented_objects(*folders[0])}
    assert found == {
        "scipy.stats": ["Draws random numbers from many laws."],  # "It fits them." is too short
        "scipy.stats.laws.mean": [
            "Computes the mean of the given sample.",
            "The sample is an array of numbers.",
            "It must hold at least one.",
        ],
        "scipy.stats.laws.Law.draw": ["Draws one number from this law of chance."],
        "scipy.stats.laws.ufunc": ["Adds two numbers one by one here."],
        "scipy.optimize.a.f": [
            "Computes the mode of the given sample.",
            "Searches a minimum by the method.",
        ],
    }


def test_topics_follow_the_module_and_near_duplicates_share_a_split(folders):
    data = apidocs.load("classification", folders)
    place = {
        text: (split, data.labels[label])
        for split in ("train", "dev", "test")
        for text, label in zip(*getattr(data, split), strict=True)
    }
    assert len(place) == 8 and {topic for _, topic in place.values()} == {
        "statistics",
        "optimization",
    }
    # "mean" and "mode" differ in one word, so both objects are in one split, with all their sentences
    near = [
        "Computes the mean of the given sample.",
        "Computes the mode of the given sample.",
        "Searches a minimum by the method.",
        "It must hold at least one.",
    ]
    assert len({place[text][0] for text in near}) == 1
    assert data.summary() == apidocs.load("classification", folders).summary()


def test_corpus_is_one_document_per_object(folders):
    data = apidocs.load("unlabelled", folders)
    assert data.task == "unlabelled" and len(data.train.texts) + len(data.dev.texts) == 8
    assert len(set(data.train.labels) | set(data.dev.labels)) == 5


def test_a_real_module(tmp_path):
    source = Path(sysconfig.get_path("stdlib")) / "statistics.py"
    (tmp_path / "statistics.py").write_bytes(source.read_bytes())
    names = {name for name, _ in apidocs.documented_objects("", tmp_path)}
    assert {"statistics", "statistics.median", "statistics.NormalDist.overlap"} <= names
    data = apidocs.load("unlabelled", [("", tmp_path)])
    assert len(data.train.texts) > 50 and any(
        "standard deviation" in text for text in data.train.texts
    )


def test_every_library_is_found_and_none_imported():
    assert [prefix for prefix, folder in apidocs.library_folders() if folder.is_dir()] == [
        "",
        "numpy.",
        "scipy.",
        "tensorflow.",
    ]
    assert len(apidocs.TOPICS) == 17
    with pytest.raises(ValueError, match="classification or unlabelled. Received: 'matching'"):
        apidocs.load("matching")


def test_the_scan_is_kept(tmp_path, folders, monkeypatch):
    monkeypatch.setattr(apidocs, "DATA_FOLDER", tmp_path / "data")
    monkeypatch.setattr(apidocs, "library_folders", lambda: folders)
    first = apidocs.load("unlabelled").summary()
    monkeypatch.setattr(apidocs, "library_folders", lambda: pytest.fail("scanned twice"))
    assert apidocs.load("unlabelled").summary() == first
