"""Checkpoints of a training stage: weights, optimizer, random generators and the loop's state together.

ckpt-N.index, ckpt-N.data-*   as TensorFlow writes them after update N; the last two are kept
ckpt-N.json                   their SHA-256
best-N/                       the best weights so far, a folder of `TaskModel.save`
"""

import json
import logging
from pathlib import Path

from keras_compress.backend import keras, tf
from keras_compress.files import claim_folder, read_json, read_safetensors, write_sealed

log = logging.getLogger(__name__)
KEPT = 2
# What TensorFlow raises on a damaged checkpoint that has no ckpt-N.json
DAMAGED = (ValueError, OSError, IndexError, AssertionError, tf.errors.OpError)


class Saver:
    """Writes and reads the checkpoints of one stage.

    Args:
        folder: None keeps the best weights in memory, and nothing else.
        model: the compiled `keras.Model` that trains. state: dict, the loop's own; read in place.
        made_from: what the checkpoints depend on, as JSON has it; those of something else are refused.
    """

    def __init__(self, folder, model, state, made_from):
        self.state, self.best, self.folder = state, None, folder and Path(folder)
        self.packed = tf.Variable("", dtype=tf.string)
        if folder:
            claim_folder(folder, made_from)
            # Keras leaves dropout's generators out of checkpoints; they are part of where a run stands.
            generators = [
                layer._random_generator._generator
                for layer in model.submodules
                if isinstance(layer, keras.layers.Dropout)
            ]
            self.checkpoint = tf.train.Checkpoint(
                model=model, optimizer=model.optimizer, generators=generators, state=self.packed
            )

    def restore(self, with_best):
        """Goes back to the newest checkpoint that is whole, `with_best`: together with its best weights.

        Raises:
            ValueError: if there are checkpoints and none is whole, naming what is damaged.
        """
        whys = []
        for path in self._checkpoints():
            try:
                self._read(path, with_best)
            except DAMAGED as error:
                whys.append(" ".join(str(error).split()))
                log.warning("warning: %s is damaged and left out: %s", path, whys[-1])
            else:
                log.info("resumed from %s", path)
                return
        if whys:
            raise ValueError(
                f"{self.folder}: a checkpoint must be whole. Received: {len(whys)} damaged, the newest: "
                f"{whys[0]} Restore the file, or delete {self.folder} to have this stage trained anew."
            )

    def _read(self, path, with_best):
        if (note := path.with_suffix(".json")).is_file():  # else it is of an earlier version
            read_json(note, beside=True)
        self.checkpoint.read(str(path)).assert_existing_objects_matched()
        state = json.loads(self.packed.numpy())
        if with_best and state["best_step"]:
            read_json(self._best_folder(state) / "config.json", beside=True)
        self.state.update(state)

    def _checkpoints(self):
        """The paths of all checkpoints without their endings, the newest first."""
        found = self.folder.glob("ckpt-[0-9]*.[ij]*") if self.folder else ()
        paths = {path.with_suffix("") for path in found if path.stem[5:].isdecimal()}
        return sorted(paths, key=lambda path: int(path.name.removeprefix("ckpt-")), reverse=True)

    def save(self):
        if not self.folder:
            return
        self.packed.assign(json.dumps(self.state))
        path = self.folder / f"ckpt-{self.state['step']}"
        self.checkpoint.write(str(path))
        write_sealed(path.with_suffix(".json"), {}, self.folder.glob(f"{path.name}.[id]*"))
        for old in self._checkpoints()[KEPT:]:
            for file in self.folder.glob(f"{old.name}.*"):
                file.unlink()

    def save_best(self, task_model):
        self.best = task_model.weights()
        if self.folder:
            task_model.save(self._best_folder(self.state), overwrite=True)

    def restore_best(self, task_model):
        if self.best is None:
            folder = self._best_folder(self.state)
            read_json(folder / "config.json", beside=True)
            # by name: a method may train more weights than the config describes
            self.best = read_safetensors(folder / "model.safetensors")
        task_model.set_weights(self.best)

    def _best_folder(self, state):
        return self.folder / f"best-{state['best_step']}"
