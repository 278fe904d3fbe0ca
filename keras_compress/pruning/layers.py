"""Layer truncation: keep some layers of a BERT, drop the rest, fine-tune. Sajjad et al., 2020, arXiv:2004.03844.

Equation map
    Sec. 3    which layers stay: top-, bottom- and alternate-layer dropping      select_layers (bert/layer_maps.py)
Departures
    Named after the layers that are *kept*: "bottom" is the paper's top-layer dropping.
    From a pre-trained model this is the usual "first K layers" baseline. From a fine-tuned model it
    keeps the head and what the layers have learned.
"""

from typing import Literal

from keras_compress.bert.layer_maps import HOW, select_layers
from keras_compress.method import Count, compression, note
from keras_compress.training.finetune import tune
from keras_compress.training.settings import Training


@compression(trained_head=False, bert=True)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers: Count = 3,
    how: Literal[HOW] | list[int] = "bottom",
):
    """Truncates a model and fine-tunes it.

    Args:
        task_model: pre-trained or fine-tuned.
        num_layers: layers to keep. how: see `select_layers`.
    Returns:
        `TaskModel` of `num_layers` layers with embeddings and head of the large one.
    """
    kept = select_layers(task_model.config.num_layers, num_layers, how)
    note(kept=kept)
    small = task_model.keep_layers(kept, seed=seed)
    return tune(small, dataset, seed=seed, training=training)
