"""A teacher's outputs on disk: it runs once per text that training will see, and later epochs only read.

One .npy file per output, memory-mapped, the texts one after the other without their padding:
    (n, width)                   logits, pooled, [CLS]           one row a text
    (pieces, hidden)             hidden states                   one row a token
    (entries,)                   attention, heads x seq x seq    one block a text
"""

import dataclasses
import logging
import shutil
import tempfile
import time
import weakref
from pathlib import Path

import numpy as np

from keras_compress.backend import tf
from keras_compress.datasets.dataset import Split, batch_order

log = logging.getLogger(__name__)
READ_BYTES_PER_S = 500e6  # a slow disk; below it, reading costs more than it saves
BATCHES_AHEAD = 3  # that are in memory: the one at work and the next two


def cache_outputs(model, dataset, tokenizer, order_by, training, seed, first, last):
    """Runs a teacher over the training texts of batches `first` to `last` - 1 and keeps what it says.

    Args:
        model: `keras.Model`, inputs -> flat dict of outputs (`distiller.outputs`).
        tokenizer: the teacher's. order_by: the student's, whose lengths decide which texts form a batch.
        seed, first, last: see `training.stream`.
    Returns:
        (first, last) -> tf.data of dicts of padded outputs, batch by batch as from `training.stream`.
    Raises:
        ValueError: if the disk has no room for it.
    """
    ours = dataset.lengths("train", order_by, training.max_length)
    per_epoch = -(-len(ours) // training.batch_size)

    def rows_of(first, last):
        """The places of the texts of each batch."""
        for number in range(first, last):
            epoch, place = divmod(number, per_epoch)
            if place == 0 or number == first:
                order = batch_order(ours, training.batch_size, seed * 1000 + epoch)
            yield order[place]

    # Whatever the place where the first epoch is entered, the second one is whole.
    read = np.unique(np.concatenate([*rows_of(first, min(last, first + 2 * per_epoch))]))
    dataset = dataclasses.replace(
        dataset, train=Split(*([column[i] for i in read] for column in dataset.train))
    )
    lengths = dataset.lengths("train", tokenizer, training.max_length)
    shapes = {name: output.shape for name, output in model.output.items()}
    sizes = {name: _sizes(shape, lengths) for name, shape in shapes.items()}
    num_bytes = sum(4 * int(size.sum()) for size in sizes.values())
    for left in (
        Path(training.folder).glob("teacher-*") if training.folder else ()
    ):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="teacher-", dir=training.folder))
    free = shutil.disk_usage(folder).free
    if num_bytes > 0.9 * free:
        shutil.rmtree(folder)
        raise ValueError(
            f"The disk must have room for the teacher's outputs. Received: {free:,} bytes free, "
            f"{num_bytes:,} needed. Leave out `cache_teacher`, or compare fewer layers."
        )
    files = {
        name: np.lib.format.open_memmap(
            folder / f"{name.replace('/', '-')}.npy", "w+", np.float32, (int(size.sum()),)
        )
        for name, size in sizes.items()
    }
    starts = {name: np.concatenate([[0], np.cumsum(size)]) for name, size in sizes.items()}
    run = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)
    begin = time.perf_counter()
    for rows, (inputs, _) in zip(
        batch_order(lengths, training.batch_size, 0),
        dataset.batches("train", tokenizer, training.batch_size, training.max_length, 0),
    ):
        for name, values in run(inputs).items():
            for row, value in zip(rows, values.numpy()):
                files[name][starts[name][row] : starts[name][row + 1]] = _cut(
                    value, lengths[row]
                ).ravel()
    seconds = time.perf_counter() - begin
    log.info(
        "teacher: %d texts once, %.1f s, %.1f MB on disk (%s), at most %.1f MB in memory",
        len(lengths),
        seconds,
        num_bytes / 1e6,
        ", ".join(f"{name} {4e-6 * size.sum():.1f}" for name, size in sizes.items()),
        4e-6 * BATCHES_AHEAD * training.batch_size * sum(size.max() for size in sizes.values()),
    )
    if last - first <= per_epoch:
        log.warning("warning: caching does not pay here: no text is read twice")
    elif num_bytes / READ_BYTES_PER_S > seconds:
        log.warning(
            "warning: caching does not pay here: reading %.0f MB in every epoch takes longer than the "
            "teacher's %.1f s",
            num_bytes / 1e6,
            seconds,
        )
    signature = {name: tf.TensorSpec(shape, tf.float32) for name, shape in shapes.items()}

    def batches(first, last):
        def generate():
            for rows in rows_of(first, last):
                rows = np.searchsorted(read, rows)
                longest = min(-(-int(lengths[rows].max()) // 4) * 4, training.max_length)
                yield {
                    name: np.stack(
                        [
                            _pad(
                                files[name][starts[name][row] : starts[name][row + 1]],
                                shape,
                                lengths[row],
                                longest,
                            )
                            for row in rows
                        ]
                    )
                    for name, shape in shapes.items()
                }

        whole = tf.data.Dataset.from_generator(generate, output_signature=signature)
        # Unless its length is known, Keras ends an epoch by one step too many, which moves the optimizer's count.
        return whole.apply(tf.data.experimental.assert_cardinality(last - first)).prefetch(
            BATCHES_AHEAD - 1
        )

    weakref.finalize(batches, shutil.rmtree, folder, ignore_errors=True)
    return batches


def _sizes(shape, lengths):
    """Numbers per text that an output of this shape takes without padding."""
    if len(shape) == 2:
        return np.full(len(lengths), shape[-1], np.int64)
    return lengths * shape[-1] if len(shape) == 3 else shape[1] * lengths**2


def _cut(value, length):
    """One text's output without padding: (width,), (length, hidden) or (heads, length, length)."""
    return (
        value
        if value.ndim == 1
        else value[:length]
        if value.ndim == 2
        else value[:, :length, :length]
    )


def _pad(flat, shape, length, longest):
    """Inverse of `_cut` and ravel, padded with zeros to `longest`."""
    if len(shape) == 2:
        return flat
    if len(shape) == 3:
        padded = np.zeros((longest, shape[-1]), np.float32)
        padded[:length] = flat.reshape(length, -1)
        return padded
    padded = np.zeros((shape[1], longest, longest), np.float32)
    padded[:, :length, :length] = flat.reshape(shape[1], length, length)
    return padded
