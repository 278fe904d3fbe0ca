"""A teacher's outputs on disk: it runs once per text that training will see, and later epochs only read.

One .npy file per output, memory-mapped, text after text without padding:
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
BATCHES_AHEAD = 3  # that are in memory: the batch at work and the next two


def cache_outputs(model, dataset, tokenizer, order_by, training, seed, first, last):
    """Runs a teacher over the training texts of batches `first` to `last` - 1 and keeps its outputs.

    Args:
        model: `keras.Model`, inputs -> flat dict of outputs (`distill.named_outputs`).
        tokenizer: the teacher's. order_by: the student's, whose lengths decide which texts form a batch.
        seed, first, last: see `loop.stream`.
    Returns:
        (first, last) -> tf.data of dicts of padded outputs, batch by batch as from `loop.stream`.
    Raises:
        ValueError: if the disk has no room for it.
    """
    order_lengths = dataset.lengths("train", order_by, training.max_length)
    per_epoch = -(-len(order_lengths) // training.batch_size)

    def rows_of(first, last):
        """The numbers of the texts of each batch."""
        for number in range(first, last):
            epoch, position = divmod(number, per_epoch)
            if position == 0 or number == first:
                order = batch_order(order_lengths, training.batch_size, seed * 1000 + epoch)
            yield order[position]

    # Wherever the first epoch is entered, the second is whole.
    read = np.unique(np.concatenate([*rows_of(first, min(last, first + 2 * per_epoch))]))
    train = Split(*([column[i] for i in read] for column in dataset.train))
    dataset = dataclasses.replace(dataset, train=train)
    lengths = dataset.lengths("train", tokenizer, training.max_length)
    shapes = {name: output.shape for name, output in model.output.items()}
    sizes = {name: _numbers_per_text(shape, lengths) for name, shape in shapes.items()}
    num_bytes = 4 * sum(int(size.sum()) for size in sizes.values())
    folder = _new_folder(training.folder, num_bytes)
    files, starts = {}, {}
    for name, size in sizes.items():
        path = folder / f"{name.replace('/', '-')}.npy"
        files[name] = np.lib.format.open_memmap(path, "w+", np.float32, (int(size.sum()),))
        starts[name] = np.concatenate([[0], np.cumsum(size)])
    run = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)
    begin = time.perf_counter()
    texts = dataset.batches("train", tokenizer, training.batch_size, training.max_length, 0)
    for rows, (inputs, _) in zip(batch_order(lengths, training.batch_size, 0), texts):
        for name, values in run(inputs).items():
            for row, value in zip(rows, values.numpy()):
                start, end = starts[name][row : row + 2]
                files[name][start:end] = value[_real(value.ndim, lengths[row])].ravel()
    _say(
        time.perf_counter() - begin, num_bytes, sizes, training.batch_size, last - first > per_epoch
    )

    def padded(name, row, longest):
        shape = [longest if size is None else size for size in shapes[name][1:]]
        value = np.zeros(shape, np.float32)
        real = _real(value.ndim, lengths[row])
        start, end = starts[name][row : row + 2]
        value[real] = files[name][start:end].reshape(value[real].shape)
        return value

    def batches(first, last):
        def generate():
            for rows in rows_of(first, last):
                rows = np.searchsorted(read, rows)
                longest = min(-(-int(lengths[rows].max()) // 4) * 4, training.max_length)
                yield {
                    name: np.stack([padded(name, row, longest) for row in rows]) for name in shapes
                }

        signature = {name: tf.TensorSpec(shape, tf.float32) for name, shape in shapes.items()}
        whole = tf.data.Dataset.from_generator(generate, output_signature=signature)
        # Unless its length is known, Keras ends an epoch by one step too many, which moves the optimizer's count.
        known = tf.data.experimental.assert_cardinality(last - first)
        return whole.apply(known).prefetch(BATCHES_AHEAD - 1)

    weakref.finalize(batches, shutil.rmtree, folder, ignore_errors=True)
    return batches


def _new_folder(parent, num_bytes):
    """A folder for the files. Removes what a run that was killed left; raises ValueError if the disk is full."""
    for left in Path(parent).glob("teacher-*") if parent else ():
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="teacher-", dir=parent))
    free = shutil.disk_usage(folder).free
    if num_bytes > 0.9 * free:
        shutil.rmtree(folder)
        raise ValueError(
            f"The disk must have room for the teacher's outputs. Received: {free:,} bytes free, "
            f"{num_bytes:,} needed. Leave out `cache_teacher`, or compare fewer layers."
        )
    return folder


def _numbers_per_text(shape, lengths):
    """How many numbers of an output each text has without padding: int64 (n,)."""
    if len(shape) == 2:
        return np.full(len(lengths), shape[-1], np.int64)
    return lengths * shape[-1] if len(shape) == 3 else shape[1] * lengths**2


def _real(rank, length):
    """The part of a text's output that is no padding: (width,), (length, hidden) or (heads, length, length)."""
    return [(), (slice(length),), (slice(None), slice(length), slice(length))][rank - 1]


def _say(seconds, num_bytes, sizes, batch_size, read_twice):
    """Logs what the cache took, and warns where it does not pay."""
    log.info(
        "teacher: %d texts once, %.1f s, %.1f MB on disk (%s), at most %.1f MB in memory",
        len(next(iter(sizes.values()))),
        seconds,
        num_bytes / 1e6,
        ", ".join(f"{name} {4e-6 * size.sum():.1f}" for name, size in sizes.items()),
        4e-6 * BATCHES_AHEAD * batch_size * sum(size.max() for size in sizes.values()),
    )
    if not read_twice:
        log.warning("warning: caching does not pay here: no text is read twice")
    elif num_bytes / READ_BYTES_PER_S > seconds:
        log.warning(
            "warning: caching does not pay here: reading %.0f MB in every epoch takes longer than the teacher's %.1f s",
            num_bytes / 1e6,
            seconds,
        )
