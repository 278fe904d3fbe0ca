import dataclasses
import subprocess
import sys

import pytest

from keras_compress.method import FAMILIES, method, methods, settings_of
from keras_compress.training.loop import finetune
from keras_compress.training.settings import Training


def test_methods_are_found_by_their_place():
    found = methods()
    assert found["theseus"][0] == "replacement" and "Xu et al., 2020" in found["theseus"][1]
    assert found["layers"][0] == "pruning" and all(
        family in FAMILIES and about for family, about in found.values()
    )


def test_listing_does_not_import_tensorflow():
    code = "import sys; from keras_compress.method import methods; methods(); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_new_file_is_a_method_and_a_helper_is_not(tmp_path, monkeypatch):
    (tmp_path / "pruning").mkdir()
    (tmp_path / "pruning" / "new.py").write_text(
        '"""A new method.\n\nMore."""\ndef compress(): pass\n'
    )
    (tmp_path / "pruning" / "helper.py").write_text("def other(): pass\n")
    monkeypatch.setattr("keras_compress.method.PACKAGE", tmp_path)
    assert methods() == {"new": ("pruning", "A new method.")}


def test_method_and_its_settings():
    assert method("finetune") is finetune
    assert settings_of("finetune") == {}  # how long and how a stage trains is not a recipe's to say
    settings = settings_of("theseus")
    assert settings["num_layers"] == 3 and "seed" not in settings and "training" not in settings
    with pytest.raises(
        ValueError, match="`method` must be one of finetune, .*theseus.*Received: 'magic'"
    ):
        method("magic")


@pytest.mark.parametrize("name", methods())
def test_every_method_keeps_the_contract(name):
    import inspect

    parameters = inspect.signature(method(name)).parameters
    assert list(parameters)[:2] == ["task_model", "dataset"] and {"seed", "training"} <= set(
        parameters
    )
    assert all(
        p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in list(parameters.values())[2:]
    )


def test_no_setting_of_a_method_has_the_name_of_one_of_training():
    """A recipe's step and `--set` could not tell them apart."""
    fields = {field.name for field in dataclasses.fields(Training)} | {
        "name",
        "method",
        "from",
        "data",
    }
    assert all(
        not fields & settings_of(name).keys() for name in [*methods(), "finetune", "masked_lm"]
    )
