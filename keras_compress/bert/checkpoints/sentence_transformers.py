"""A sentence-transformers folder: a Hugging Face folder, and modules.json, which tells how its BERT makes text vectors."""

import json
import logging
from pathlib import Path

from keras_compress.bert.checkpoints import huggingface
from keras_compress.files import read_json

log = logging.getLogger(__name__)


def recognises(source):
    return (Path(source) / "modules.json").is_file()


def read(source, num_labels=0):
    """Reads the BERT; a new classifier will read what the folder's pooling says.

    Raises ValueError if that is neither [CLS] nor the mean, or if a layer that is none of BERT follows.
    """
    folder = Path(source)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    places = {
        str(module.get("type")).rpartition(".")[2]: module.get("path", "") for module in modules
    }
    path = folder / places.get("Pooling", "") / "config.json"
    config = read_json(path) if "Pooling" in places else {}
    mode = config.get("pooling_mode") or "+".join(
        name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for name, value in config.items()
        if name.startswith("pooling_mode_") and value is True
    )
    known = {"Transformer", "Pooling", "Normalize"}
    if not places.keys() <= known or mode not in ("cls", "mean") or "Transformer" not in places:
        raise ValueError(
            f"{folder / 'modules.json'}: a BERT, its [CLS] or mean, and a norm are read. Received: "
            f"{', '.join(places)}, pooling {mode or 'none'}. To use its BERT alone under a new classifier, copy the "
            "folder without modules.json."
        )
    checkpoint = huggingface.read(folder / places["Transformer"], num_labels)
    if "classifier/kernel" in checkpoint.tensors:
        return checkpoint
    about = "%s: a new classifier reads %s, as %s says; a classifier does not use Normalize"
    log.info(about, source, mode, path)
    return checkpoint._replace(config=checkpoint.config.replace(pooling=mode))
