"""AdamW with warm-up, decay and clipping, and the distribution strategy that it runs under."""

import functools
import os

from keras_compress.backend import keras, tf


def strategy(name):
    """One strategy object per process: models and training must meet the same object.

    With TF_CONFIG set, call it before TensorFlow does anything else (the command line does).
    """
    return tf.distribute.get_strategy() if name == "none" else _mirrored()


@functools.cache
def _mirrored():
    if os.environ.get("TF_CONFIG"):
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


@keras.utils.register_keras_serializable(package="keras_compress")
class WarmUpLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate up linearly from 0 to `peak` in `warmup_steps`, then down to 0 at `num_steps`.

    Devlin et al., 2019, App. A.2. `first_step`: where a second stage enters a schedule for both.
    """

    def __init__(self, peak, warmup_steps, num_steps, first_step=0):
        self.peak, self.warmup_steps = peak, warmup_steps
        self.num_steps, self.first_step = num_steps, first_step

    def __call__(self, step):
        step = tf.cast(step, tf.float32) + self.first_step
        up = (step + 1.0) / max(self.warmup_steps, 1)
        down = (self.num_steps - step) / max(self.num_steps - self.warmup_steps, 1)
        return self.peak * tf.clip_by_value(tf.minimum(up, down), 0.0, 1.0)

    def get_config(self):
        return dict(vars(self))


@keras.utils.register_keras_serializable(package="keras_compress")
class AdamW(keras.optimizers.AdamW):
    """AdamW that updates an embedding matrix in one loop over it, by XLA, where Keras makes about ten.

    A batch meets few of the matrix's rows, but moments and decay move them all: a quarter of a small
    model's step.
    """

    slow, rate = frozenset(), 1.0

    def slow_down(self, variables, rate):
        """From now on these variables make `rate` of each update: a layer-wise learning rate.

        The finished update is scaled; a scaled gradient would give the same update, which is divided by its size.
        """
        self.slow, self.rate = {self._var_key(variable) for variable in variables}, rate

    def _update_step(self, gradient, variable):
        if self._var_key(variable) not in self.slow:
            return self._whole_step(gradient, variable)
        before = tf.identity(variable)
        self._whole_step(gradient, variable)
        variable.assign(before + self.rate * (variable - before))

    def _whole_step(self, gradient, variable):
        update = super()._update_step
        if isinstance(gradient, tf.IndexedSlices):
            # Made dense first: XLA would compile anew for every number of rows.
            gradient = tf.convert_to_tensor(gradient)
            update = tf.function(update, jit_compile=True)
        update(gradient, variable)


def adamw(training, num_steps, first_step=0, slow=(), rate=1.0, epsilon=1e-6):
    """AdamW (Loshchilov & Hutter, 2019, Alg. 2) with warm-up, decay and clipping as `training` says.

    Args:
        num_steps: updates at whose end the learning rate is 0. first_step: updates of them that went before.
        slow, rate: variables that make a share of each update alone, and do not decay; see `AdamW.slow_down`.
        epsilon: gradients far below it, after clipping, hardly move a weight.
    """
    warmup_steps = round(training.warmup * num_steps)
    optimizer = AdamW(
        learning_rate=WarmUpLinear(training.learning_rate, warmup_steps, num_steps, first_step),
        weight_decay=training.weight_decay,
        global_clipnorm=training.clip_norm,
        epsilon=epsilon,
    )
    optimizer.exclude_from_weight_decay(list(slow), var_names=["bias", "_norm/", "scores"])
    optimizer.slow_down(slow, rate)
    return optimizer
