"""Checkpoints of a training stage: weights, optimizer, random generators and the loop's state together."""

import json
import logging

from keras_compress.backend import keras, tf
from keras_compress.files import claim_folder, read_safetensors

log = logging.getLogger(__name__)


class Saver:
    """Writes and reads the checkpoints of one stage.

    Args:
        folder: None keeps the best weights in memory, and nothing else.
        model: the compiled `keras.Model` that trains. state: dict, the loop's own; read in place.
        made_from: what the checkpoints depend on, as JSON has it; those of something else are refused.
    """

    def __init__(self, folder, model, state, made_from):
        self.state, self.best, self.manager = state, None, None
        self.packed = tf.Variable("", dtype=tf.string)
        if folder:
            claim_folder(folder, made_from)
            # Keras leaves dropout's generators out of checkpoints; they are part of where a run stands.
            generators = [
                layer._random_generator._generator
                for layer in model.submodules
                if isinstance(layer, keras.layers.Dropout)
            ]
            checkpoint = tf.train.Checkpoint(
                model=model, optimizer=model.optimizer, generators=generators, state=self.packed
            )
            self.manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=2)

    def restore(self):
        if self.manager and self.manager.latest_checkpoint:
            status = self.manager.checkpoint.restore(self.manager.latest_checkpoint)
            status.assert_existing_objects_matched()
            self.state.update(json.loads(self.packed.numpy()))
            log.info("resumed from %s", self.manager.latest_checkpoint)

    def save(self):
        if self.manager:
            self.packed.assign(json.dumps(self.state))
            self.manager.save(self.state["step"])

    def save_best(self, task_model):
        self.best = task_model.weights()
        if self.manager:
            task_model.save(self._best_folder(), overwrite=True)

    def restore_best(self, task_model):
        if self.best is None:
            self.best = read_safetensors(f"{self._best_folder()}/model.safetensors")
        task_model.set_weights(self.best)

    def _best_folder(self):
        return f"{self.manager.directory}/best-{self.state['best_step']}"
