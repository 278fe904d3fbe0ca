"""Weight clustering: every kernel takes only a few different values. Han et al., 2016, arXiv:1510.00149.

    centroids c_1 .. c_k per kernel, trained; each weight takes the nearest one          TF-MOT's ClusterWeights
    the gradient of a centroid is the sum over its weights; the weights themselves
    move, too (straight-through), and may change to another centroid
Through TF-MOT (`cluster_weights`). Clustered are the kernels of all Dense layers but the classifier.

A .tflite file stores every weight in full, with no table of centroids: neither the file nor the time gets smaller. Only
a compressed file does (`gzip_bytes` of an export), because few values repeat often.
"""
import tensorflow_model_optimization as tfmot

from keras_compress.backend import keras
from keras_compress.bert.task_model import TaskModel
from keras_compress.measure.accuracy import evaluate
from keras_compress.training import Training, adamw, check_fit, fit, task_loss

clustering = tfmot.clustering.keras


def is_clustered(layer):
    return isinstance(layer, keras.layers.Dense) and layer.name != "classifier"


def strip(clustered, task_model, seed=0):
    """The plain `TaskModel` of a clustered `keras.Model`, its kernels set to their centroids."""
    layers = clustering.strip_clustering(clustered).layers
    return TaskModel(task_model.config, task_model.tokenizer, task_model.task, task_model.labels, seed=seed,
                     layers=layers)


def compress(task_model, dataset, *, seed=0, training=Training(), num_clusters=16):
    """Fine-tunes a model whose kernels have few different values.

    Args:
        task_model: `TaskModel`; left as it is.
        num_clusters: k, values per kernel.
    Returns:
        `TaskModel` of the same shape and size.
    Raises:
        ValueError: if model and data do not fit, a setting is out of range, or the model is quantised.
    """
    check_fit(task_model, dataset)
    if num_clusters < 2 or training.patience is not None:
        raise ValueError("`num_clusters` must be 2 or more, and `patience` none: the centroids belong to the last "
                         f"update. Received: {num_clusters} and {training.patience}.")
    if task_model.config.architecture != "bert" or task_model.config.quantization:
        raise ValueError("Only a BERT that is not quantised can be clustered. Received: "
                         f"{task_model.config.architecture}, quantization = {task_model.config.quantization}.")
    num_steps = training.num_steps(len(dataset.train.texts))
    with training.scope():
        copy = task_model.clone(seed=seed)
        start = clustering.CentroidInitialization.KMEANS_PLUS_PLUS
        clustered = keras.models.clone_model(copy.model, clone_function=lambda layer: clustering.cluster_weights(
            layer, num_clusters, start) if is_clustered(layer) else layer)
        clustered.compile(adamw(training, num_steps), task_loss(copy.task), jit_compile=False)
    curve = fit(clustered, copy, dataset, training, seed=seed, stage="clustering",
                measure=lambda: evaluate(strip(clustered, task_model), dataset.dev)["value"])
    small = strip(clustered, task_model).clone(seed=seed)
    small.curve = [*copy.curve, *curve]
    small.history = [*copy.history, {"method": "clustering", "seed": seed, "num_clusters": num_clusters,
                                     "training": training.settings()}]
    return small
