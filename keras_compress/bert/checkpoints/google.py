"""A Google folder: bert_config.json, bert_model.ckpt.*, vocab.txt; or an ALBERT's albert_config*.json and *.ckpt*.

An ALBERT's vocabulary must be a WordPiece vocab.txt, as the Chinese ones are.
"""

from pathlib import Path

from keras_compress.backend import tf
from keras_compress.bert.checkpoints.names import rename
from keras_compress.bert.checkpoints.published import published, read_config

# Google's names of a BERT, then those of an ALBERT's one layer, to Hugging Face's
_RENAMINGS = (
    ("/", "."),
    (r"(type|word|position)_embeddings$", r"\g<0>.weight"),
    (r"predictions\.output_bias", "predictions.bias"),
    (r"encoder\.layer_", "encoder.layer."),
    (r"transformer\.group_0\.inner_group_0\.", "layer.0."),
    (r"layer\.0\.LayerNorm\.", "layer.0.attention.output.LayerNorm."),
    (r"layer\.0\.LayerNorm_1\.", "layer.0.output.LayerNorm."),
    (r"attention_1\.", "attention."),
    (r"ffn_1\.intermediate\.output\.", "output."),
    (r"ffn_1\.", ""),
)


def recognises(source):
    return any(Path(source).glob("*.ckpt*.index"))


def read(source, num_labels=0):
    """Reads encoder, pooler and masked-LM head; the file has no classifier."""
    folder = Path(source)
    indices = sorted(folder.glob("*.ckpt*.index"))
    if len(indices) > 1:
        raise ValueError(
            f"{folder}: a folder must hold one checkpoint. Received: {[path.name for path in indices]}."
        )
    _, config, _ = read_config(folder)
    # google-research/albert, modeling.py, computes "gelu" by tanh. A BERT keeps erf, as in Hugging Face and bert4keras.
    # A checkpoint that bert4keras wrote looks the same as Google's: load its .h5 instead.
    if config.sharing == "all" and config.activation == "gelu":
        config = config.replace(activation="gelu_tanh")
    prefix = indices[0].with_suffix("")
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        names = reader.get_variable_to_shape_map()
        weights = rename(names, config.num_layers, reader.get_tensor, _RENAMINGS)
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{prefix}: not a whole TensorFlow checkpoint ({str(error).splitlines()[0]}). "
            "Copy or download all its files again."
        ) from error
    return published(config, folder, *weights)
