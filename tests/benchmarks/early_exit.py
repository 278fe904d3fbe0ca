"""Early exit in Keras: MiniLM's sizes with an exit after each layer, against all six layers; wall time, alternating."""

import numpy as np

from mobile_export.benchmark import interleave
from tests.benchmarks import figure
from tests.benchmarks.training import LENGTH, minilm

RUNS, WARMUP = 24, 3


def with_exits():
    """MiniLM's sizes with random exits."""
    plain = minilm()
    config, weights = plain.config.replace(exits=[1, 2, 3, 4, 5]), plain.weights()
    return plain.rebuilt(config, weights, only=weights)


def sure_at(model, layer):
    """Makes the exit of one layer sure of every text at speed 0, and no other exit of any."""
    for exit_layer in model.config.exits:
        bias = np.array([1e4 if exit_layer == layer else 0.0, 0.0], np.float32)
        model.set_weights({f"exit_{exit_layer}/bias": bias}, only=[f"exit_{exit_layer}/bias"])


def early_exit():
    """A batch that leaves after layer k of 6, over k/6 of the time of all layers without exits: the bar is 1.15. One text
    and 32; of 32 also with texts that leave at different layers, by their mean layer."""
    from keras_compress.bert.early_exit import in_one_graph, in_segments, uncertainty

    model, found = with_exits(), []
    ways = {"segments": in_segments(model), "graph": in_one_graph(model)}
    random = np.random.default_rng(0)
    for batch in (1, 32):
        inputs = {
            "input_word_ids": random.integers(4, 30000, (batch, LENGTH)).astype(np.int32),
            "input_mask": np.ones((batch, LENGTH), np.int32),
            "input_type_ids": np.zeros((batch, LENGTH), np.int32),
        }

        def measure(name, speed, run, batch=batch, inputs=inputs):
            layer = run(inputs, speed)[1].mean()
            full = lambda: model._forward(inputs).numpy()
            ours, whole = np.median(interleave([lambda: run(inputs, speed), full], RUNS, WARMUP), 1)
            return figure(
                f"early_exit, {name}, batch {batch}",
                ours / whole * 6 / layer,
                f"mean layer of exit {layer:.2f} of 6: {ours:.2f} ms",
                f"all layers without exits: {whole:.2f} ms",
            )

        for way, run in ways.items():
            for layer in (1, 3, 6):
                sure_at(model, layer)
                found.append(measure(f"{way}, layer {layer}", 0.0, run))
        if batch > 1:
            sure_at(model, None)
            unsure = uncertainty(np.array(model.features(["exit_logits"])(inputs)["exit_logits"]))
            speed = float(np.quantile(unsure, 0.25))  # a quarter leaves at each exit, about
            found.append(measure("segments, mixed", speed, ways["segments"]))
    return found


FIGURES = {"early_exit": early_exit}
