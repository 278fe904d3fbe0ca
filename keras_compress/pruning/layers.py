"""Layer truncation: keep some layers of a BERT, drop the rest, fine-tune. Sajjad et al., 2020, arXiv:2004.03844.

Equation map
    Sec. 3    which layers stay (their top-, bottom- and alternate-layer dropping)     select_layers
Departures
    Named after the layers that are *kept*: "bottom" is the paper's top-layer dropping.
    From a pre-trained model this is the usual "first K layers" baseline; from a fine-tuned one it keeps the
    head and what the layers have learned.
"""
from keras_compress.training import Training, finetune

HOW = ("bottom", "top", "alternate")


def select_layers(num_layers, keep, how="bottom"):
    """Which layers stay.

    Args:
        num_layers: layers of the model. keep: how many stay.
        how: "bottom" (0, 1, ..), "top" (the last ones), "alternate" (evenly spaced from the first: of 12 -> 6
            layers 0, 2, 4, ..), or an explicit list of layers, in rising order.
    Returns:
        list of layers, from 0.
    Raises:
        ValueError: if that is not possible.
    """
    if isinstance(how, (list, tuple)):
        layers = list(how)
        if len(layers) != keep or layers != sorted(set(layers)) or not all(0 <= i < num_layers for i in layers):
            raise ValueError(f"The layers kept must be {keep} different ones among 0 to {num_layers - 1}, rising. "
                             f"Received: {layers}.")
        return layers
    if how not in HOW:
        raise ValueError(f"`how` must be {', '.join(HOW)} or a list of layers. Received: {how!r}.")
    if not 1 <= keep <= num_layers:
        raise ValueError(f"`num_layers` must be 1 to {num_layers}, the model's own. Received: {keep}.")
    if how == "alternate":
        return [i * num_layers // keep for i in range(keep)]
    return list(range(keep)) if how == "bottom" else list(range(num_layers - keep, num_layers))


def compress(task_model, dataset, *, seed=0, training=Training(), num_layers=3, how="bottom"):
    """Truncates a model and fine-tunes it.

    Args:
        task_model: `TaskModel`, pre-trained or fine-tuned; left as it is.
        num_layers: layers to keep. how: see `select_layers`.
    Returns:
        `TaskModel` of `num_layers` layers with embeddings and head of the large one.
    """
    kept = select_layers(task_model.config.num_layers, num_layers, how)
    small = task_model.keep_layers(kept, seed=seed)
    small.history.append({"method": "layers", "seed": seed, "num_layers": num_layers, "how": how, "kept": kept})
    return finetune(small, dataset, seed=seed, training=training)
