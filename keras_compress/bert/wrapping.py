"""What pruning, clustering and quantisation share: layers of a flat model that TF-MOT wraps."""

from keras_compress.backend import keras


def check_bert(task_model):
    """Raises ValueError unless the model is a BERT, whose kernels are those of Dense layers."""
    if task_model.config.architecture != "bert":
        raise ValueError(
            "Only a BERT can be pruned, clustered or quantised. Received: a "
            f"{task_model.config.architecture}."
        )


def is_inner_dense(layer):
    """Whether a layer is a `Dense`, but not the classifier."""
    return isinstance(layer, keras.layers.Dense) and layer.name != "classifier"


def wrapped(model, wrap, which=is_inner_dense):
    """The `keras.Model` with some layers wrapped; all layers are the model's own, not copies.

    Args:
        wrap: layer -> the layer around it. which: layer -> whether it is wrapped.
    """
    return keras.models.clone_model(
        model, clone_function=lambda layer: wrap(layer) if which(layer) else layer
    )
