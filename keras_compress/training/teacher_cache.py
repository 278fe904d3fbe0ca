"""A teacher's outputs on disk: it runs once per training text, and every epoch only reads.

One memory-mapped .npy file, text after text, in each text output after output, without padding:
    (width,)                   logits, pooled, [CLS]
    (pieces, hidden)           hidden states
    (heads, pieces, pieces)    attention
"""

import functools
import logging
import math
import shutil
import tempfile
import time
import weakref
from pathlib import Path

import numpy as np

from keras_compress.backend import tf
from keras_compress.datasets.dataset import batch_order

log = logging.getLogger(__name__)
READ_BYTES_PER_S = 500e6  # a slow disk; below it, reading costs more than it saves


def cache_outputs(model, dataset, tokenizer, order_by, training, seed, num_steps):
    """Runs a teacher over the training texts and keeps its outputs until the result is given up.

    Args:
        model: `keras.Model`, inputs -> flat dict of outputs (`distill.named_outputs`).
        tokenizer: the teacher's. order_by: the student's, whose lengths decide which texts form a batch.
        num_steps: batches that will be read.
    Returns:
        (first, last) -> tf.data of dicts of padded outputs, batch by batch as from `loop.stream`.
    Raises:
        ValueError: if the disk has no room for it.
    """
    order_lengths, lengths = (
        dataset.lengths("train", each, training.max_length) for each in (order_by, tokenizer)
    )
    per_epoch = math.ceil(len(lengths) / training.batch_size)
    shapes = {name: output.shape for name, output in model.output.items()}

    def blocks(length):
        """The shape of each output of a text of so many pieces."""
        return [
            tuple(length if size is None else size for size in shape[1:])
            for shape in shapes.values()
        ]

    numbers = [sum(map(math.prod, blocks(length))) for length in lengths]
    starts = np.concatenate([[0], np.cumsum(numbers)])
    num_bytes = 4 * int(starts[-1])
    folder = _new_folder(training.folder, num_bytes)
    file = np.lib.format.open_memmap(folder / "outputs.npy", "w+", np.float32, (starts[-1],))
    run = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)
    begin = time.perf_counter()
    texts = dataset.batches("train", tokenizer, training.batch_size, training.max_length, 0)
    for rows, (inputs, _) in zip(batch_order(lengths, training.batch_size, 0), texts):
        outputs = run(inputs)
        values = [outputs[name].numpy() for name in shapes]
        for place, row in enumerate(rows):
            pairs = zip(values, blocks(lengths[row]))
            real = [value[place][tuple(map(slice, block))].ravel() for value, block in pairs]
            file[starts[row] : starts[row + 1]] = np.concatenate(real)
    seconds = time.perf_counter() - begin
    told = len(lengths), seconds, num_bytes / 1e6, ", ".join(shapes)
    log.info("teacher: %d texts once, %.1f s, %.1f MB on disk (%s)", *told)
    if num_steps <= per_epoch or num_bytes / READ_BYTES_PER_S > seconds:
        log.warning(
            "warning: caching does not pay here: %d updates read each text %.1f times, and an epoch's "
            "reading may take longer than the teacher's %.1f s",
            num_steps,
            num_steps / per_epoch,
            seconds,
        )

    def padded(row, longest):
        flat, values = file[starts[row] : starts[row + 1]], []
        for real, whole in zip(blocks(lengths[row]), blocks(longest)):
            values.append(np.zeros(whole, np.float32))
            values[-1][tuple(map(slice, real))] = flat[: math.prod(real)].reshape(real)
            flat = flat[math.prod(real) :]
        return values

    @functools.lru_cache(1)
    def order(epoch):
        return batch_order(order_lengths, training.batch_size, seed * 1000 + epoch)

    def batches(first, last):
        def generate():
            for number in range(first, last):
                rows = order(number // per_epoch)[number % per_epoch]
                longest = min(-(-int(lengths[rows].max()) // 4) * 4, training.max_length)
                values = zip(*(padded(row, longest) for row in rows))
                yield dict(zip(shapes, map(np.stack, values)))

        signature = {name: tf.TensorSpec(shape, tf.float32) for name, shape in shapes.items()}
        whole = tf.data.Dataset.from_generator(generate, output_signature=signature)
        # Unless its length is known, Keras ends an epoch by one step too many, which moves the optimizer's count.
        return whole.apply(tf.data.experimental.assert_cardinality(last - first)).prefetch(2)

    weakref.finalize(batches, shutil.rmtree, folder, ignore_errors=True)
    return batches


def _new_folder(parent, num_bytes):
    """A folder for the file. Removes what a run that was killed left; raises ValueError if the disk is full."""
    for left in Path(parent).glob("teacher-*") if parent else ():
        shutil.rmtree(left, ignore_errors=True)
    free = shutil.disk_usage(parent or tempfile.gettempdir()).free
    if num_bytes > 0.9 * free:
        raise ValueError(
            f"The disk must have room for the teacher's outputs. Received: {free:,} bytes free, "
            f"{num_bytes:,} needed. Leave out `cache_teacher`, or compare fewer layers."
        )
    return Path(tempfile.mkdtemp(prefix="teacher-", dir=parent))
