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
from tqdm import tqdm

from keras_compress.backend import tf
from keras_compress.datasets.dataset import batch_order
from keras_compress.own import remove_own

log = logging.getLogger(__name__)


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
        """{name: shape} of the outputs of a text of so many pieces."""
        return {
            name: tuple(length if size is None else size for size in shape[1:])
            for name, shape in shapes.items()
        }

    def parts(rows):
        """Where the outputs of a batch of texts lie: (name, place in the padded batch, place in the file)."""
        for number, row in enumerate(rows):
            start = starts[row]
            for name, block in blocks(lengths[row]).items():
                end = start + math.prod(block)
                yield name, (number, *map(slice, block)), slice(start, end)
                start = end

    sizes = [sum(map(math.prod, blocks(length).values())) for length in lengths]
    starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    folder = _new_folder(training.folder, 4 * starts[-1])
    file = np.lib.format.open_memmap(folder / "outputs.npy", "w+", np.float32, (starts[-1],))
    run = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)
    begin = time.perf_counter()
    texts = dataset.batches("train", tokenizer, training.batch_size, training.max_length, 0)
    batch_rows = batch_order(lengths, training.batch_size, 0)
    for rows, (inputs, _) in zip(tqdm(batch_rows, "teacher", delay=5, disable=None), texts):
        outputs = {name: value.numpy() for name, value in run(inputs).items()}
        for name, inside, span in parts(rows):
            file[span] = outputs[name][inside].ravel()
    log.info(
        "teacher: %d texts once, %.1f s, %.1f MB on disk (%s)",
        len(lengths),
        time.perf_counter() - begin,
        4e-6 * starts[-1],
        ", ".join(shapes),
    )
    if num_steps <= per_epoch:
        log.warning("warning: caching does not pay here: no text is read twice")

    @functools.lru_cache(1)
    def order(epoch):
        return batch_order(order_lengths, training.batch_size, seed * 1000 + epoch)

    def batches(first, last):
        def generate():
            for number in range(first, last):
                rows = order(number // per_epoch)[number % per_epoch]
                longest = min(-(-int(lengths[rows].max()) // 4) * 4, training.max_length)
                outputs = {
                    name: np.zeros((len(rows), *block), np.float32)
                    for name, block in blocks(longest).items()
                }
                for name, inside, span in parts(rows):
                    outputs[name][inside].flat = file[span]
                yield outputs

        signature = {name: tf.TensorSpec(shape, tf.float32) for name, shape in shapes.items()}
        whole = tf.data.Dataset.from_generator(generate, output_signature=signature)
        # Unless its length is known, Keras ends an epoch by one step too many, which moves the optimizer's count.
        return whole.apply(tf.data.experimental.assert_cardinality(last - first)).prefetch(2)

    weakref.finalize(batches, shutil.rmtree, folder, ignore_errors=True)
    return batches


def _new_folder(parent, num_bytes):
    """A folder for the file. Removes what a run that was killed left; raises ValueError if the disk is full."""
    for left in Path(parent).glob("teacher-*/") if parent else ():
        remove_own(left, lambda path, name: name == "outputs.npy")
    free = shutil.disk_usage(parent or tempfile.gettempdir()).free
    if num_bytes > 0.9 * free:
        raise ValueError(
            f"The disk must have room for the teacher's outputs. Received: {free:,} bytes free, "
            f"{num_bytes:,} needed. Leave out `cache_teacher`, or compare fewer layers."
        )
    return Path(tempfile.mkdtemp(prefix="teacher-", dir=parent))
