"""Before hours of training: every step is tried, the plan is told, and then how long is left.

A plan here is an `experiment.Plan`: what is made of one data set.
"""

import logging
import time
from collections import Counter

from keras_compress.bert.tokenizer import Encoding
from keras_compress.training.loop import duration
from keras_compress.training.settings import Training, rehearsal
from mobile_export.convert import FORMATS, check_export
from mobile_export.parity import MAX_SECONDS, NUM_PARITY_TEXTS

log = logging.getLogger(__name__)
FEW, LONG = 8, 200  # texts of a rehearsal: of dev, and of running text
CONVERT = 2e-7  # seconds to convert one parameter: 20 s for a BERT-base, on two busy cores
TIMED = 120  # passes of `benchmark`, over a file and the one that it is set against


def needed(plan):
    """The steps of all models that a plan's missing cells need, parents first."""
    needed = {}

    def add(step):
        for parent in step.models.values():
            add(parent)
        needed[step.name, step.seed] = step

    for step in plan.missing():
        add(step)
    return needed.values()


def rehearse(plan):
    """Runs every step that is still to be made for two updates.

    Returns:
        {name: (updates and seconds of a whole training, for each of its texts; seconds of a pass over a text of full
        length; parameters)}.
    Raises:
        ValueError: naming the step, if it is impossible.
    """
    started, models, costs = time.time(), {}, {}
    for step in needed(plan):
        if step.name not in models:
            models[step.name], costs[step.name] = _rehearsed(plan, step, models)
    log.info("rehearsed %d steps in %.0f s", len(models), time.time() - started)
    return costs


def _rehearsed(plan, step, models):
    """(model of a step, its cost), from those of its parents."""
    data, training = plan.data(step.data), Training(**step.training)
    size, texts = training.batch_size, len(data.train.texts)
    few = data.subset(num_train=max(size, LONG if step.data else 0), num_dev=FEW)
    # As many updates of as many texts as in earnest.
    epochs = training.num_steps(texts) / -(-len(few.train.texts) // size)
    one_pass, short = 0, {"epochs": epochs, "evaluations": 0, "patience": None}
    try:
        with rehearsal() as stages:
            model = plan.run_step(step, lambda parent: models[parent.name], few, **short)
        if step.role != "helper":
            if model.task != plan.dataset.task:
                raise ValueError(
                    f'what makes a model for {model.task} must say role = "helper". Received: no role.'
                )
            check_export(model, plan.folder, step.formats or plan.recipe["formats"], plan.length)
            one_pass = _seconds_of_a_pass(model, plan.length)
    except ValueError as error:
        raise ValueError(f"Step {step.name}: {error}") from error
    updates = sum(number for number, _ in stages)
    seconds = sum(number * each for number, each in stages)
    return model, (updates / texts, seconds / texts, one_pass, model.model.count_params())


def _seconds_of_a_pass(model, length):
    """Seconds to run one text of full length, by itself, as an exported file does."""
    full = [Encoding([0] * length, [0] * length)]
    model.forward(full)  # makes the graph
    start = time.perf_counter()
    model.forward(full * FEW, batch_size=1)
    return (time.perf_counter() - start) / FEW


def _seconds_of_files(plan, formats, one_pass, parameters):
    """What converting, comparing, timing and measuring the files of a model take."""
    dev, test = len(plan.dataset.dev.texts), len(plan.dataset.test.texts)
    seconds = 0
    for name in formats:
        compared = min(dev, NUM_PARITY_TEXTS) if FORMATS[name].tolerance else dev
        seconds += CONVERT * parameters + min(MAX_SECONDS, compared * one_pass)
        seconds += (test + TIMED) * one_pass
    return seconds


def to_train(plan, costs):
    """Rows of `Forecast`. costs: {task: what `rehearse` gave on data of it}."""
    costs = costs.get(plan.dataset.task) or {}
    for step in needed(plan):
        texts = len(plan.data(step.data).train.texts)
        updates, seconds, *sizes = costs.get(step.name, (None, 0, 0, 0))
        updates = updates and round(updates * texts)
        formats = (step.formats or plan.recipe["formats"]) if step.name in plan.only else []
        # Rates are tried with the first seed, and one of them has files; other seeds train with one of them.
        tries = len(step.rates) if step.rates and step.seed == plan.first_seed else 1
        files = _seconds_of_files(plan, formats, *sizes) / tries
        facts = step.method, ", ".join(formats), updates, seconds * texts, files
        if not (plan.place("models", step) / "config.json").is_file():
            yield from [(f"{plan.dataset.name} {step.name}", *facts)] * tries


class Forecast:
    """The models that are still to be trained.

    Args:
        rows: (data set and step, method, formats of its files, updates, seconds of training, of its files) of
            each; updates are None, and seconds 0, where nothing was rehearsed.
    """

    def __init__(self, rows=()):
        self.rows, self.started, self.done = rows, time.monotonic(), 0.0
        self.total = sum(training + files for *_, training, files in rows)

    def tell(self):
        """Logs the plan, a line per step."""
        if self.rows:
            files = sum(row[-1] for row in self.rows)
            times = duration(self.total - files), duration(files)
            form = "plan: %d model(s) to make; training takes about %s, files about %s, as rehearsed here"
            log.info(form, len(self.rows), *times)
        for (name, method, formats, updates, seconds, _), number in Counter(self.rows).items():
            took = "not rehearsed" if updates is None else "no training"
            if updates:
                took = f"{number} x {updates:,} updates, about {duration(number * seconds)}"
            log.info("  %s: %s, %s; files: %s", name, method, took, formats or "none")

    def trained(self, name):
        """Counts one model as trained, and logs the time that is left if the rest is as much slower than
        rehearsed as all was until now. Its files are counted with the next one."""
        training, files = next((row[-2:] for row in self.rows if row[0] == name), (0, 0))
        self.done += training
        if 0 < self.done < 0.99 * self.total:
            left = (time.monotonic() - self.started) * (self.total / self.done - 1)
            log.info("%s: trained; about %s left of the run", name, duration(left))
        self.done += files
