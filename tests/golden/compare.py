"""Compares two recordings of weights: python -m tests.golden.compare OTHER_FOLDER [GOLDEN_FOLDER]

Prints every case that differs. Exit status 1 if the norm of a weight differs by more than 1e-4 of
it, or the sum by what such a change of the weights can make of it.
"""

import json
import math
import sys
from pathlib import Path

TOLERANCE = 1e-4


def difference(golden, other):
    """Largest difference of a case, relative to the norms; infinity if it has other weights."""
    ours, theirs = golden["weights"], other["weights"]
    if ours.keys() != theirs.keys() or golden["num_weights"] != other["num_weights"]:
        return math.inf
    most = math.sqrt(golden["num_weights"])
    found = [0.0]
    for name, (norm, total) in ours.items():
        apart = max(abs(norm - theirs[name][0]), abs(total - theirs[name][1]) / most)
        found.append(apart / max(norm, TOLERANCE))
    return max(found)


def main(other, golden=Path(__file__).parent):
    ours, theirs = (
        json.loads(Path(folder, "weights.json").read_text(encoding="utf-8"))["cases"]
        for folder in (golden, other)
    )
    same, wrong = 0, [name for name in ours if name not in theirs]
    for name in ours.keys() ^ theirs.keys():
        print(f"{name}: only in {other if name in theirs else golden}")
    for name in [name for name in ours if name in theirs]:
        if ours[name]["sha256"] == theirs[name]["sha256"]:
            same += 1
            continue
        found = difference(ours[name], theirs[name])
        wrong += [name] * (found > TOLERANCE)
        print(f"{name}: other bits, norms differ by {found:.1e}")
    print(f"{same} of {len(ours)} cases equal to the bit, {len(wrong)} too far off")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
