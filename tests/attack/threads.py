"""One tokenizer and one runner, used by eight threads at once: answers that are not those of one thread."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from mobile_export.ort import open_model
from tests.bert import tiny

TEXTS = ["the cat " * k for k in (1, 2, 5, 9)]
LENGTHS = (4, 8, 16)


def attack(file, tries):
    """Counter of "survived" and "LOST: .." answers of an exported file's runner and of the tokenizer, `tries` each."""
    jobs = [(TEXTS[k % 4], LENGTHS[k % 3]) for k in range(tries)]
    tokenizer, runner = tiny.tokenizer(), open_model(file)

    def answer(job):
        (encoding,) = tokenizer.encode([job[0]], job[1])
        return encoding.ids, runner.run(runner.inputs(encoding)).tobytes()

    alone, counts = {job: answer(job) for job in {*jobs}}, Counter()
    with ThreadPoolExecutor(8) as pool:
        for job, found in zip(jobs, pool.map(answer, jobs)):
            for whose, one, right in zip(("tokenizer", "runner"), found, alone[job]):
                counts["survived" if one == right else f"LOST: a wrong answer of the {whose}"] += 1
    return counts
