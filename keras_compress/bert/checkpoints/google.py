"""A Google folder: bert_config.json, bert_model.ckpt.*, vocab.txt; or an ALBERT's albert_config*.json and *.ckpt*.

bert4keras' name map and reader open it. An ALBERT's vocabulary must be a WordPiece vocab.txt, as the Chinese ones are.
"""

from pathlib import Path

from keras_compress.backend import tf
from keras_compress.bert.checkpoints.bert4keras import config_names, layer_names, rename
from keras_compress.bert.checkpoints.published import published, read_config


def recognises(source):
    return any(Path(source).glob("*.ckpt*.index"))


def read(source, num_labels=0):
    """Reads encoder, pooler and masked-LM head; the file has no classifier.

    Returns:
        `Checkpoint`.
    Raises:
        ValueError: naming the file, if it is not one whole checkpoint with a WordPiece vocabulary.
    """
    folder = Path(source)
    indices = sorted(folder.glob("*.ckpt*.index"))
    if len(indices) > 1:
        raise ValueError(
            f"{folder}: a folder must hold one checkpoint. Received: {[path.name for path in indices]}."
        )
    _, config, values = read_config(folder, *config_names(folder))
    sentence_piece = [*folder.glob("*.model"), *folder.glob("*.vocab")]
    if sentence_piece and not (folder / "vocab.txt").is_file():
        raise ValueError(
            f"{folder}: the vocabulary must be WordPiece, a vocab.txt. Received: SentencePiece. Choose "
            "an ALBERT that comes with vocab.txt, as the Chinese ones do."
        )
    # google-research/albert, modeling.py, computes "gelu" by tanh. A BERT keeps erf, as in Hugging Face and bert4keras.
    # A checkpoint that bert4keras wrote looks the same as Google's: load its .h5 instead.
    if config.sharing == "all" and config.activation == "gelu":
        config = config.replace(activation="gelu_tanh")
    return published(config, folder, *_tensors(indices[0].with_suffix(""), config, values))


def _tensors(prefix, config, values):
    from bert4keras.models import ALBERT, BERT

    kind = ALBERT if config.sharing == "all" else BERT
    reader = kind(**{"hidden_act": "gelu", "max_position": None, **values})
    names, layers = layer_names(config), {}
    try:
        left_out = {name for name, _ in tf.train.list_variables(str(prefix))}
        for layer, variables in reader.variable_mapping().items():
            if layer in names and left_out.issuperset(variables):
                layers[layer] = [reader.load_variable(str(prefix), name) for name in variables]
                left_out.difference_update(variables)
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{prefix}: not a whole TensorFlow checkpoint ({str(error).splitlines()[0]}). "
            "Copy or download all its files again."
        ) from error
    return rename(layers, config, None)[0], sorted(left_out)
