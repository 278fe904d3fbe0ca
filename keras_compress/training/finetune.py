"""Fine-tuning: all weights learn a task from its labels. Devlin et al., 2019, arXiv:1810.04805, Sec. 4."""

from keras_compress.backend import keras
from keras_compress.bert.tasks import TASKS
from keras_compress.method import compression
from keras_compress.training.loop import fit
from keras_compress.training.optimizer import adamw
from keras_compress.training.settings import Training


def task_loss(task):
    """Cross-entropy in nats, mean over texts; tagging: over the words' first pieces (labels not -1); multilabel: binary,
    over texts and names. Regression: squared error."""
    if TASKS[task].answer == "number":
        return keras.losses.MeanSquaredError()
    if TASKS[task].answer == "sigmoid":
        return keras.losses.BinaryCrossentropy(from_logits=True)
    ignored = -1 if TASKS[task].per_token else None
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignored)


@compression(trained_head=False)
def finetune(task_model, dataset, *, seed=0, training=Training()):
    """Trains a model on a task. Returns a new `TaskModel`."""
    return tune(task_model.clone(seed=seed), dataset, seed=seed, training=training)


def tune(
    task_model,
    dataset,
    *,
    seed,
    training,
    num_steps=None,
    first_step=0,
    only="",
    model=None,
    stage="finetune",
    **settings,
):
    """Trains a model in place on the labels, as `finetune` does and as the last stage of a method.

    Args:
        task_model: `TaskModel` that was made with `seed`, which is dropout's.
        num_steps: updates; default: what `training` gives for the data. first_step: updates of
            earlier stages, after which the learning rate goes on.
        only: train only the layers whose name starts so; default: all.
        model: `keras.Model` around the same layers that trains in place of `task_model.model`.
        stage, settings: see `loop.fit`.
    Returns:
        The same `TaskModel`.
    """
    model = model or task_model.model
    num_steps = num_steps or training.num_steps(len(dataset.train.texts))
    for layer in task_model.model.layers:
        layer.trainable = layer.name.startswith(only)
    optimizer = adamw(training, first_step + num_steps, first_step)
    model.compile(optimizer, task_loss(task_model.task), jit_compile=False)
    settings |= {"seed": seed, "stage": stage, "num_steps": num_steps}
    task_model.curve += fit(model, task_model, dataset, training, **settings)
    return task_model
