"""Layer truncation: keep some layers of a BERT, drop the rest, fine-tune. Sajjad et al., 2020, arXiv:2004.03844.

Equation map
    Sec. 3    which layers stay (their top-, bottom- and alternate-layer dropping)   select_layers (bert/selection.py)
Departures
    Named after the layers that are *kept*: "bottom" is the paper's top-layer dropping.
    From a pre-trained model this is the usual "first K layers" baseline; from a fine-tuned one it keeps the
    head and what the layers have learned.
"""

from keras_compress.bert.layer_maps import select_layers
from keras_compress.training.loop import Training, finetune


def compress(task_model, dataset, *, seed=0, training=Training(), num_layers=3, how="bottom"):
    """Truncates a model and fine-tunes it.

    Args:
        task_model: `TaskModel`, pre-trained or fine-tuned; left as it is.
        num_layers: layers to keep. how: see `select_layers`.
    Returns:
        `TaskModel` of `num_layers` layers with embeddings and head of the large one.
    """
    kept = select_layers(task_model.config.num_layers, num_layers, how)
    with training.scope():
        small = task_model.keep_layers(kept, seed=seed)
    small.history.append(
        {"method": "layers", "seed": seed, "num_layers": num_layers, "how": how, "kept": kept}
    )
    return finetune(small, dataset, seed=seed, training=training, in_place=True)
