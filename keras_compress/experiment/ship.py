"""What to ship: the smallest, the fastest and the most accurate of all files of a run."""

MAX_FALL = 0.02  # of the metric, beyond the paired 95 % interval: what loses more is not shipped


def to_ship(entries, drifted=False):
    """The best files by point estimates, from the entries (`compare.entries_of`) of one seed and data set.

    The predecessor's and the baselines' files count, too.

    Args:
        drifted: whether files count that drifted from Keras.
    Returns:
        list of dicts: `best` ("smallest", "fastest", "most accurate"), `name` and `role` of the model, `format`,
        `bytes`, `times_as_fast`, `accuracy`, and `vs_predecessor`, the paired difference of its float32
        file.
    """
    files = [
        {**file, "name": entry["method"], "role": entry["role"]}
        for entry in entries
        for file in entry.get("files", ())
        if "vs_predecessor" in file and (drifted or not file.get("drift"))
    ]
    files = [file for file in files if file["vs_predecessor"]["high"] >= -MAX_FALL]
    if not files:
        return []
    keys = "name role format bytes times_as_fast accuracy vs_predecessor".split()
    best = {
        "smallest": min(files, key=lambda file: (file["bytes"], -file["accuracy"])),
        "fastest": max(files, key=lambda file: (file["times_as_fast"], file["accuracy"])),
        "most accurate": max(files, key=lambda file: (file["accuracy"], -file["bytes"])),
    }
    return [{"best": what} | {key: file[key] for key in keys} for what, file in best.items()]
