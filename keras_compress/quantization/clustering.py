"""Weight clustering: every kernel takes only a few different values. Han et al., 2016, arXiv:1510.00149.

    centroids c_1 .. c_k per kernel, trained; each weight takes the nearest one          TF-MOT's ClusterWeights
    the gradient of a centroid is the sum over its weights; the weights themselves
    move, too (straight-through), and may change to another centroid
Through TF-MOT (`cluster_weights`). Clustered are the kernels of all Dense layers but the classifier.

A .tflite file stores every weight in full, with no table of centroids: neither the file nor the time gets smaller. Only
a compressed file does (`gzip_bytes` of an export), because few values repeat often.
"""

import tensorflow_model_optimization as tfmot

from keras_compress.bert.layers import check_bert, wrapped
from keras_compress.bert.task_model import weights_of
from keras_compress.measure.accuracy import evaluate
from keras_compress.training.loop import Training, adamw, check_fit, fit, task_loss

clustering = tfmot.clustering.keras


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
        raise ValueError(
            "`num_clusters` must be 2 or more, and `patience` none: the centroids belong to the last "
            f"update. Received: {num_clusters} and {training.patience}."
        )
    check_bert(task_model)
    num_steps = training.num_steps(len(dataset.train.texts))
    with training.scope():
        copy = task_model.clone(seed=seed)
        start = clustering.CentroidInitialization.KMEANS_PLUS_PLUS
        clustered = wrapped(
            copy.model, lambda layer: clustering.cluster_weights(layer, num_clusters, start)
        )
        clustered.compile(adamw(training, num_steps), task_loss(copy.task), jit_compile=False)
    copy.history.append(
        {
            "method": "clustering",
            "seed": seed,
            "num_clusters": num_clusters,
            "training": training.settings(),
        }
    )

    def stripped():
        """The plain model, its kernels set to their centroids."""
        return copy.rebuilt(
            copy.config, weights_of(clustering.strip_clustering(clustered)), seed=seed
        )

    copy.curve += fit(
        clustered,
        copy,
        dataset,
        training,
        seed=seed,
        stage="clustering",
        measure=lambda: evaluate(stripped(), dataset.dev)["value"],
    )
    return stripped()
