"""A sentence-transformers folder: a Hugging Face folder, and modules.json, which tells how its BERT makes text vectors."""

import json
import logging
from pathlib import Path

from keras_compress.bert.checkpoints import huggingface
from keras_compress.bert.tokenizer import Tokenizer
from keras_compress.files import read_json

log = logging.getLogger(__name__)


def recognises(source):
    return (Path(source) / "modules.json").is_file()


def read(source, num_labels=0):
    """Reads the BERT; a new classifier will read what the folder's pooling says.

    A classifier that is there, as of a cross-encoder, is read as it is. Raises ValueError if the pooling is neither [CLS]
    nor the mean, or if a layer that is none of BERT follows.
    """
    folder = Path(source)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    places = {
        str(module.get("type")).rpartition(".")[2]: module.get("path", "") for module in modules
    }
    fits = "Transformer" in places and places.keys() <= {"Transformer", "Pooling", "Normalize"}
    if fits:
        own = folder / places["Transformer"]
        checkpoint = huggingface.read(own, num_labels, above=folder)
        checkpoint = checkpoint._replace(tokenizer=_lowercased(own, checkpoint.tokenizer))
        if "classifier/kernel" in checkpoint.tensors:
            return checkpoint
    path = folder / places.get("Pooling", "") / "config.json"
    config = read_json(path) if "Pooling" in places else {}
    mode = config.get("pooling_mode") or "+".join(
        name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for name, value in config.items()
        if name.startswith("pooling_mode_") and value is True
    )
    if not fits or mode not in ("cls", "mean"):
        raise ValueError(
            f"{folder / 'modules.json'}: a BERT, its [CLS] or mean, and a norm are read. Received: "
            f"{', '.join(places)}, pooling {mode or 'none'}. To use its BERT alone under a new classifier, copy the "
            "folder without modules.json."
        )
    about = "%s: a new classifier reads %s, as %s says; a classifier does not use Normalize"
    log.info(about, source, mode, path)
    if (folder / "model_head.pkl").is_file():
        about = "%s: SetFit's classifier, model_head.pkl, could run code and is not read: train a new one"
        log.warning(about, source)
    return checkpoint._replace(config=checkpoint.config.replace(pooling=mode))


def _lowercased(folder, tokenizer):
    """The tokenizer behind the module's own `do_lower_case`: true lower-cases texts before they reach it, accents and
    special pieces written in them, too; false, as nearly every folder has it, leaves the case to the tokenizer."""
    for path in sorted(folder.glob("sentence_*_config.json")):
        if not read_json(path).get("do_lower_case"):
            continue
        if not tokenizer.lowercase:
            about = "%s: texts are lower-cased, as `do_lower_case` says there, but the tokenizer's own files say cased; "
            log.warning(about + "`--cased` overrides it", path)
        accents = tokenizer.strip_accents if tokenizer.lowercase else bool(tokenizer.strip_accents)
        changes = {"strip_accents": accents, "special_in_text": False}
        return Tokenizer(tokenizer.own, True, **{**tokenizer.switches(), **changes})
    return tokenizer
