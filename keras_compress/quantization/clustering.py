"""Weight clustering: every kernel takes only a few different values. Han et al., 2016, arXiv:1510.00149.

Equation map (TF-MOT's `cluster_weights`)
    Sec. 3     centroids c_1 .. c_k per kernel, trained; each weight takes the nearest      ClusterWeights
    Sec. 3.3   the gradient of a centroid is the sum over its weights                       the same
Departures
    Clustered are the kernels of all Dense layers but the classifier, k values in each. The paper
    shares the weights of every layer, after pruning, and codes them by Huffman.
    The first centroids come from k-means++; the paper finds evenly spaced ones best.
    Weights move, too (straight-through), and may change to another centroid. The paper assigns them
    once, and trains the centroids alone.
    Warm-up, weight decay and clipping are `training`'s, where the paper has plain SGD. They act on
    weights and centroids alike.

A .tflite file stores every weight in full, with no table of centroids: neither the file nor the time
gets smaller. Only a compressed file does (`gzip_bytes` of an export), because few values repeat often.
"""

from typing import Annotated

import tensorflow_model_optimization as tfmot
from pydantic import Field

from keras_compress.bert.layers import wrapped
from keras_compress.bert.task_model import weights_of
from keras_compress.measure.accuracy import evaluate
from keras_compress.method import compression
from keras_compress.training.finetune import tune
from keras_compress.training.settings import Training

api = tfmot.clustering.keras


@compression(trained_head=False, bert=True, keeps_best=False)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_clusters: Annotated[int, Field(ge=2)] = 16,
):
    """Fine-tunes a model whose kernels have few different values.

    Args:
        num_clusters: k, values per kernel.
    Returns:
        `TaskModel` of the same shape and size.
    """
    copy, start = task_model.clone(seed=seed), api.CentroidInitialization.KMEANS_PLUS_PLUS
    clustered = wrapped(copy.model, lambda layer: api.cluster_weights(layer, num_clusters, start))

    def stripped():
        """The plain model, its kernels set to their centroids."""
        return copy.rebuilt(copy.config, weights_of(api.strip_clustering(clustered)), seed=seed)

    settings = {"model": clustered, "stage": "clustering"}
    settings["measure"] = lambda: evaluate(stripped(), dataset.dev)["value"]
    tune(copy, dataset, seed=seed, training=training, **settings)
    return stripped()
