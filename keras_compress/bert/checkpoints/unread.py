"""What a source is that no reader takes, and how to make something of it that can be read."""

import re
import zipfile
from pathlib import Path

from keras_compress.files import read_json

_SAVE = "model.save_pretrained(folder, safe_serialization=True)"
_TORCH = (
    "a file of torch. If it holds weights alone, name it pytorch_model.bin, beside config.json and vocab.txt, and "
    "give the folder; else load it where you trust it, since it can run code, and write " + _SAVE
)
_H5 = "load it where it was made, and write model.save_weights('name.h5')"
_SUFFIXES = {
    ".safetensors": "a file of weights alone. Give its folder, with config.json and vocab.txt, and the weights as "
    "model.safetensors",
    ".tflite": "an exported file. Give the folder of the model that it was made of",
    ".onnx": "an exported file. Give the folder of the model that it was made of",
    ".gguf": "a file for llama.cpp. Take the Hugging Face folder that it was made of",
    ".pb": f"a TensorFlow graph; {_H5}",
}
_FILES = {  # in a folder
    "openvino_model.xml": "a model for OpenVINO. Take the Hugging Face folder that it was made of",
    "saved_model.pb": f"a TensorFlow SavedModel; {_H5}",
    "tf_model.h5": f"Hugging Face's weights for TensorFlow. Load with from_tf=True, then {_SAVE}",
    "flax_model.msgpack": f"Hugging Face's weights for Flax. Load with from_flax=True, then {_SAVE}",
}


def what_is(source):
    """What a source is, and the way out, as the end of a message."""
    path = Path(source)
    if path.is_dir():
        files = [x for at in ("*", "onnx/*", "openvino/*") for x in path.glob(at) if x.is_file()]
        named = [f"{file.name}, {what}" for file in sorted(files) if (what := _known(file))]
        inside = sorted(file.parent.name for file in path.glob("*/config.json"))
        ending = f" itself; one in it may: {', '.join(inside[:3])}" if inside else ""
        return [*named, f"a folder that holds none of these{ending}"][0]
    if path.is_file():
        return _known(path) or "a file that holds none of these"
    if re.fullmatch(r"[\w.-]+/[\w.-]+|(distil|al)?bert-\w+-[\w-]+", str(source)):
        return f"{source}, which does not exist, but looks like a Hub name: hf download {source}"
    return f"{source}, which does not exist"


def _known(path):
    """What a file is by its name or its content, None if these do not tell."""
    if path.name == "adapter_config.json":
        base = read_json(path).get("base_model_name_or_path")
        return (
            f"an adapter (LoRA) of the model {base} without that model. Merge them in `peft`: model = "
            "AutoPeftModelForSequenceClassification.from_pretrained(folder), or the class of its task; "
            f"model = model.merge_and_unload(); {_SAVE}"
        )
    if path.name == "config.json" and str(read_json(path).get("module")).startswith("keras_"):
        return "a preset of KerasHub. Take the Hugging Face folder of the same BERT, and fine-tune it here (`train`)"
    if path.name in _FILES or path.suffix in _SUFFIXES:
        return _FILES.get(path.name) or _SUFFIXES[path.suffix]
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(b"\x89HDF"):
        return f"weights of Keras. Give the file: {path}"
    if start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5":
        return _TORCH
    if start.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            return _TORCH
        if "model.weights.h5" in names:
            return f"a whole Keras model, which can hold code; {_H5}"
    return None


def what_h5_is(names):
    """What an HDF5 file is whose groups have these names, and the way out."""
    some = f"({len(names)} groups: {', '.join([*names][:3])})"
    if any(name.startswith("Encoder-1-") for name in names):
        return (
            f"weights of keras-bert {some}. Build the same model in bert4keras, copy the weights layer by layer, "
            "and write model.save_weights('name.h5')"
        )
    if {"layers", "_layer_checkpoint_dependencies"} & {*names}:
        return f"weights as Keras 3 and 'name.weights.h5' write them {some}. Write model.save_weights('name.h5')"
    if any(name in ("bert", "electra", "distilbert") for name in names):
        return f"{_FILES['tf_model.h5']} {some}"
    return (
        f"another model's {some}. Build the bert4keras classifier on `model.output` of the encoder itself, whose layers "
        "have no prefix, and write model.save_weights('name.h5')"
    )
