"""What a run is about to train, how long that takes about, and how long is left."""

import logging
import time
from collections import Counter

from keras_compress.training.loop import duration

log = logging.getLogger(__name__)


class Forecast:
    """The models that are still to be trained.

    Args:
        rows: (data set and step, method, formats of its files, updates, seconds) of each; updates are
            None, and seconds 0, where nothing was rehearsed.
    """

    def __init__(self, rows=()):
        self.rows, self.started, self.done = rows, time.monotonic(), 0.0
        self.total = sum(seconds for *_, seconds in rows)

    def tell(self):
        """Logs the plan, a line per step."""
        if self.rows:
            total = duration(self.total)
            form = "plan: %d model(s) to make; training takes about %s, as rehearsed here; then come files"
            log.info(form, len(self.rows), total)
        for (name, method, formats, updates, seconds), number in Counter(self.rows).items():
            took = "not rehearsed" if updates is None else "no training"
            if updates:
                took = f"{number} x {updates:,} updates, about {duration(number * seconds)}"
            log.info("  %s: %s, %s; files: %s", name, method, took, formats or "none")

    def trained(self, name):
        """Counts one model as trained, and logs the time that is left if the rest is as much slower than
        rehearsed as all was until now, files and measuring included."""
        self.done += next((row[-1] for row in self.rows if row[0] == name), 0)
        if 0 < self.done < 0.99 * self.total:
            left = (time.monotonic() - self.started) * (self.total / self.done - 1)
            log.info("%s: trained; about %s left of the run", name, duration(left))
