"""A Google folder: bert_config.json, bert_model.ckpt.*, vocab.txt; or an ALBERT's albert_config*.json and *.ckpt*.

An ALBERT's vocabulary must be a WordPiece vocab.txt, as the Chinese ones are. run_classifier.py's output is one of
them, too: its classifier reads the pooler; its classes have no names, and one output is a score.
"""

import contextlib
import logging
import math
import re
from pathlib import Path

from keras_compress.backend import tf
from keras_compress.bert.checkpoints.names import rename
from keras_compress.bert.checkpoints.published import published, read_config
from keras_compress.bert.tasks import SCORE

# Google's names of a BERT, of a MobileBERT, then those of an ALBERT's one layer, to Hugging Face's
_RENAMINGS = (
    ("/", "."),
    (r"(type|word|position)_embeddings$", r"\g<0>.weight"),
    (r"^output_(weight|bias)s?$", r"classifier.\1"),  # of run_classifier.py
    (r"predictions\.output_bias", "predictions.bias"),
    (r"encoder\.layer_", "encoder.layer."),
    (r"FakeLayerNorm", "LayerNorm"),
    (r"ffn_layer_(\d+)", r"ffn.\1"),
    (r"predictions\.extra_output_weights", "predictions.dense.kernel"),
    (r"embeddings\.embedding_transformation", "encoder.embedding_hidden_mapping_in"),
    (r"transformer\.group_0\.inner_group_0\.", "layer.0."),
    (r"layer\.0\.LayerNorm\.", "layer.0.attention.output.LayerNorm."),
    (r"layer\.0\.LayerNorm_1\.", "layer.0.output.LayerNorm."),
    (r"attention_1\.", "attention."),
    (r"ffn_1\.intermediate\.output\.", "output."),
    (r"ffn_1\.", ""),
)


log = logging.getLogger(__name__)


def recognises(source):
    return bool(_prefixes(source))


def read(source, num_labels=0):
    """Reads encoder, pooler, masked-LM head, and the classifier of run_classifier.py."""
    prefix = _choose(source, _prefixes(source))
    folder = prefix.parent
    with _whole(prefix):
        reader = tf.train.load_checkpoint(str(prefix))
        names, kinds = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        claimed = sum(
            math.prod(names[name]) * kinds[name].size for name in names if kinds[name].is_floating
        )
        if claimed > sum(file.stat().st_size for file in folder.glob(f"{prefix.name}.data-*")):
            raise ValueError(f"{claimed:,} bytes of numbers, more than its files have")
    _check_layout(prefix, names)
    if any(name.endswith("/ExponentialMovingAverage") for name in names):
        about = "%s: the weights are read as trained, not their moving averages, which are there, too; if answers were "
        log.warning(about + "taken from these, save them under the weights' own names", prefix)
    if not any(folder.glob("*config*.json")):
        raise ValueError(
            f"{folder}: the weights must come with bert_config.json or config.json. It stays with the "
            "pre-trained model, as vocab.txt does: copy both from there."
        )
    _, config, _ = read_config(folder)
    with _whole(prefix):
        weights = rename(names, config, reader.get_tensor, _RENAMINGS)
    kernel = weights[0].get("classifier/kernel")
    score = ()
    if kernel is not None and kernel.shape[-1] == 1:  # of ALBERT's run_classifier.py on STS-B
        log.info("%s: its one output is read as a score (regression)", prefix)
        score = "regression", SCORE
    # google-research's albert and mobilebert, modeling.py, compute "gelu" by tanh. A BERT keeps erf, as in Hugging Face and bert4keras.
    # A checkpoint that bert4keras wrote looks the same as Google's: load its .h5 instead.
    by_tanh = config.sharing == "all" or config.architecture == "mobilebert"
    if by_tanh and config.activation == "gelu":
        config = config.replace(activation="gelu_tanh")
    return published(config, folder, *weights, *score)


@contextlib.contextmanager
def _whole(prefix):
    try:
        yield
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{prefix}: not a whole TensorFlow checkpoint ({str(error).splitlines()[0]}). "
            "Copy or download all its files again."
        ) from error


def _prefixes(source):
    """The checkpoints that a folder holds, or that a file or the name common to several files stands for."""
    common = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", str(source))
    indices = sorted(Path(source).glob("*.index")) or [Path(f"{common}.index")]
    return [index.with_suffix("") for index in indices if index.is_file()]


def _choose(source, prefixes):
    """The checkpoint that the file `checkpoint` names, else the one of the last step."""
    if len(prefixes) == 1 or not Path(source).is_dir():
        return prefixes[0]
    state, names = Path(source, "checkpoint"), [prefix.name for prefix in prefixes]
    text = state.read_text(encoding="utf-8") if state.is_file() else ""
    named = re.search(r'^model_checkpoint_path: "(?:.*[/\\])?(.+)"', text, re.M)
    steps = [re.search(r"-(\d+)$", name) for name in names]
    if named and named[1] in names:
        chosen, why = named[1], "as the file checkpoint says"
    elif all(steps):
        chosen, why = max(names, key=lambda name: int(name.rpartition("-")[2])), "the last step"
    else:
        raise ValueError(
            f"{source}: a folder must hold one checkpoint, or several that end in their step. Received: "
            f"{', '.join(names)}. Give the one: {prefixes[0]}."
        )
    log.info("%s: of %d checkpoints %s is read, %s", source, len(names), chosen, why)
    return Path(source, chosen)


def _check_layout(prefix, names):
    if "_CHECKPOINTABLE_OBJECT_GRAPH" in names:
        raise ValueError(
            f"{prefix}: a checkpoint must name variables as Google's BERT does. Received: an object checkpoint of "
            "TensorFlow 2. Take the one for TensorFlow 1, or load it in bert4keras and write "
            "model.save_weights('name.h5')."
        )
    if any(name.startswith("electra/") for name in names):
        raise ValueError(
            f"{prefix}: a checkpoint must be of Google's BERT, ALBERT or MobileBERT. Received: Google's ELECTRA. Take its "
            "Hugging Face folder (google/electra-small-discriminator and others), or convert it in `transformers`: "
            "convert_electra_original_tf_checkpoint_to_pytorch.py, for its discriminator."
        )
    if any("/layer_shared/" in name for name in names):
        raise ValueError(
            f"{prefix}: an ALBERT must have the layout of google-research/albert. Received: that of the early "
            "albert_zh (layer_shared). Take its Google form, with _google or _g in its name."
        )
