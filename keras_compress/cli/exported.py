"""The verbs of exported files: written, timed and shown. What verbs declare and give: verbs.py."""

import contextlib
import logging
import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from keras_compress.cli.options import COMMAS, AnySource, Source, Texts
from keras_compress.lock import alone
from keras_compress.method import Count

SHOWN = 20  # changed answers


def export(
    *,
    source: Source,
    texts: Texts,
    out,
    overwrite=False,
    formats="float32,int8",
    onnx=False,
    length: int = 64,
    lengths: Annotated[list[int], COMMAS] | None = None,
    vectors=False,
    android=None,
    allow_drift=False,
    parity_texts: Count | None = None,
):
    """Write .tflite files, each checked against Keras. One that fails does not keep the others back.

    formats: of float32, float16, int8, int8_per_tensor, int4, int2, onnx_float32, onnx_int8; or all, that the model and
        the installed packages allow
    onnx: float32.onnx and int8.onnx for ONNX Runtime, too
    length: fixed sequence length in pieces
    lengths: several instead of one, such as 16,32,64: a .tflite file has a signature for each, on the same weights
    vectors: write parity.json, too: about 50 texts with the inputs and outputs that an app must come to
    android: folder of an Android project to make, an app with these files; or one that was made so, for the app to offer
        this model, too
    parity_texts: how many dev texts to compare a file on (default: 200 for floats, all for others, fewer
        where a pass is slow)
    """
    options = locals()
    from mobile_export.convert import ENDINGS

    written = Path(out).parent if Path(out).suffix in ENDINGS else Path(out)
    with alone(written):
        return _exported(**options, written=written)


def _exported(
    source,
    texts,
    out,
    written,
    overwrite,
    formats,
    onnx,
    length,
    lengths,
    vectors,
    android,
    allow_drift,
    parity_texts,
):
    from mobile_export import android_app, convert
    from mobile_export.contract import check_same, write_vectors
    from mobile_export.parity import in_words

    if lengths and length != 64:
        raise ValueError(
            f"Either `--length` or `--lengths` can be given. Received: {length} and {lengths}. Leave one out."
        )
    names = [*map(str.strip, formats.split(",")), *(convert.ONNX_FORMATS if onnx else ())]
    asked = convert.FORMATS if "all" in names else names
    paths = [f"{out}/{convert.file_name(name)}" for name in asked if name in convert.FORMATS]
    there = [path for path in (out, *paths) if os.path.isfile(path)]
    if there and not overwrite:
        raise ValueError(
            f"Exported files are not replaced without `--overwrite`. Received: {', '.join(there)}. "
            "Choose another folder, or pass `--overwrite`."
        )
    if android:
        android_app.check_app(android, written, overwrite)
        if {*names} <= {*convert.ONNX_FORMATS}:
            raise ValueError(
                f"An app runs .tflite files. Received: {formats}. Add `int8` to `--formats`."
            )
    model, dataset = source.load(texts.given(), texts.task)
    dev = dataset and dataset.dev
    if not overwrite:
        check_same(written, model)
    if "all" in names:
        place, several = names.index("all"), bool(lengths)
        names[place : place + 1] = convert.formats_for(model, several)
    settings = {"sequence_length": lengths or length, "parity_texts": parity_texts}
    failures = {}
    try:
        rows = convert.export(model, out, names, dev=dev, allow_drift=allow_drift, **settings)
    except convert.ExportError as error:
        rows, failures = error.files, error.failures
    form = "{path}: {bytes:,} bytes ({gzip_bytes:,} after gzip), {parts}"
    lines = []
    for row in rows:
        parts = f"{row['partitions']} XNNPACK part(s), " if row["partitions"] else ""
        lines.append(form.format(**row, parts=parts) + in_words(row))
        lines += [f"  {n} pieces: {in_words(each)}" for n, each in row.get("lengths", {}).items()]
        if row.get("mean_time"):
            gain = "  dev texts take {mean_time:.2f} of the time that all take at {sequence_length} pieces"
            lines.append(gain.format(**row))
    if (vectors or android) and rows:
        path = write_vectors(written, model, dev)
        lines.append(f"{path}: texts with inputs and outputs, for tests")
    if android and any(row["path"].endswith(".tflite") for row in rows):
        place = android_app.write_app(android, written, overwrite)
        lines.append(
            f"{place}: the model in the app. Next: python -m keras_compress android {android}"
        )
    reasons = convert.reasons_without_metadata(rows)
    lines += [f"The .tflite files hold no metadata for MediaPipe: {reason}." for reason in reasons]
    rows += [{"format": name, "failed": why} for name, why in failures.items()]
    return rows, lines, " ".join(failures.values())


def android(folder):
    """Print the three commands that bring an app, which `export --android` wrote, to a phone.

    folder: folder of the project
    """
    from mobile_export.android_app import next_commands

    commands = next_commands(folder)
    return {"commands": commands}, commands


def benchmark(
    files: list[str],
    *,
    source: AnySource,
    texts: Texts,
    threads: Annotated[Count, Field(le=1024)] = 1,
    runs: Annotated[Count, Field(le=1_000_000)] = 50,
    adb=False,
    benchmark_model=None,
    serial: list[str] = [],
    out=None,
):
    """Time exported files on this machine, side by side, and on Android phones.

    files: exported files, .tflite or .onnx
    source: the model that they come from: times the same graph as tf.function and in Keras, too
    data: a set with the model's labels, where its files do not tell them
    threads: threads of the runtime on this machine
    runs: forward passes per file, after 10 to warm up
    adb: on a phone at the USB cable, too, with 1, 2 and 4 threads
    benchmark_model: LiteRT's program of this name, for the phone's processor (mobile_export/README.md tells where it is)
    serial: of a phone in `adb devices`, where there are several; may be repeated
    out: folder of a run: its report shows the phones' figures
    """
    if not source.source and (source, texts) != (AnySource(), Texts()):
        raise ValueError(
            "Options about a model need the model. Received: no `--from`. Name the model, or leave them out."
        )
    phones = _phones(files, adb, benchmark_model, serial, out)
    # Read when TensorFlow is imported.
    os.environ.update(TF_NUM_INTRAOP_THREADS=str(threads), TF_NUM_INTEROP_THREADS=str(threads))
    from mobile_export.benchmark import benchmark

    model = source.load(texts.given(), texts.task)[0] if source.source else None
    rows = benchmark(*files, num_threads=threads, runs=runs, task_model=model)
    form = "{path}: {latency_ms_p50:.2f} ms (90th percentile {latency_ms_p90:.2f}), {times:.2f} x the first"
    first = rows[0]["latency_ms_p50"]
    lines = [form.format(**row, times=row["latency_ms_p50"] / first) for row in rows]
    lengths = ", ".join(map(str, sorted({row["sequence_length"] for row in rows})))
    lines.append(f"{rows[0]['device']}, {threads} thread(s), sequence length {lengths}")
    if not phones:
        return rows, lines
    from mobile_export import adb as bridge

    here = {row["path"]: row["latency_ms_p50"] for row in rows}
    there = bridge.benchmark_on_phones(files, benchmark_model, phones, runs)
    there = [row | {"host_ms": here.get(row["path"])} for row in there]
    measured = [row for row in there if "failed" not in row]
    lines += bridge.in_words(measured)
    if out:
        lines.append(f"Report: {_into_report(out, measured)}")
    return rows + there, lines, " ".join(row["failed"] for row in there if "failed" in row)


def _phones(files, adb, benchmark_model, serial, out):
    """The serials of the phones to measure; what can be wrong is told before anything is timed."""
    if not (adb or benchmark_model or serial or out):
        return []
    if not (adb and benchmark_model):
        raise ValueError(
            "Phones are measured with `--adb` and `--benchmark-model`; `--serial` and `--out` belong to them. "
            "Received: one without the other. Pass both, or none."
        )
    from mobile_export import adb as bridge

    if others := [file for file in files if not file.endswith(".tflite")]:
        raise ValueError(
            f"Phones run .tflite files. Received: {', '.join(others)}. Leave them out, or leave out `--adb`."
        )
    if out and not os.path.isfile(os.path.join(out, "run.json")):
        raise ValueError(
            f"`--out` must be the folder of a run. Received: {out}, which holds no run.json. Name one, or leave "
            "`--out` out; `--json` prints the figures."
        )
    bridge.abi_of(benchmark_model)
    return bridge.phones(serial)


def _into_report(out, rows):
    """Path of a run's report, written anew with the rows of phones, which replace those of earlier calls."""
    from keras_compress.experiment.report import report_of, write_report
    from keras_compress.files import write_sealed

    for serial in {row["serial"] for row in rows}:
        path = os.path.join(out, "phones", re.sub(r"[^\w.-]", "_", serial) + ".json")
        write_sealed(path, {"rows": [row for row in rows if row["serial"] == serial]})
    return write_report(out, report_of(out))


def diff(old, new, *, texts: Texts, split: Literal["train", "dev", "test"] = "test"):
    """Compare two exported files, old and new, before the new one goes out: which answers change, and what it gains.

    old: exported file, .tflite or .onnx, in the folder that `export` wrote
    new: the same, of the same task and labels
    split: train, dev or test; of unlabelled texts train
    """
    from mobile_export.diff import compare_files, opened

    (before, after), dataset = map(opened, (old, new)), texts.load()
    labelled = dataset.task != "unlabelled"
    if labelled:
        dataset.check_splits(split)
        if dataset.task != before.task:
            raise ValueError(
                f"The data must be for the files' task, {before.task}. Received: {dataset.task}. Choose other data "
                "with `--data`, or say with `--task` how they are read."
            )
        dataset = dataset.with_labels(before.labels)
    split = split if labelled else "train"
    chosen = getattr(dataset, split)
    found = compare_files(before, after, chosen.texts, chosen.labels if labelled else None)
    changed, same = found["changed"], found["agreement"]
    lines = [f"{len(changed)} of {found['num_examples']} answers change"]
    lines[0] += "" if same is None else f"; the files agree on {same:.2%}"
    if labelled:
        form = "{metric} {old_value:.2%} -> {new_value:.2%}, difference {difference:+.2%} [{low:+.2%}, {high:+.2%}]"
        lines.append(form.format(**found))
    form = "{old_bytes:,} -> {new_bytes:,} bytes; {time:.2f} x the time of the old file, one process, {device}"
    lines.append(form.format(**found))
    lines += [_change(row) for row in changed[:SHOWN]]
    if len(changed) > SHOWN:
        lines.append(f"... and {len(changed) - SHOWN} more (`--json` has all)")
    return {"old": old, "new": new, "split": split, **found}, lines


def _change(row):
    """A changed answer as a line."""
    kinds = {list: " ".join, tuple: " | ".join, float: "{:.4g}".format}  # tags, a pair, a number
    told = [kinds.get(type(x), str)(x) for x in row.values()]
    right = f" (right: {told[3]})" if "right" in row else ""
    return f"  {told[1]} -> {told[2]}{right}: {told[0]}"


def serve(folder, *, port: int = 8000):
    """Show two exported models side by side on a web page, on this machine alone.

    folder: folder of a run, or of exported files
    port: of http://127.0.0.1; 0: any that is free. For an Android phone at the USB cable: adb reverse tcp:PORT
        tcp:PORT, then the same address in its browser
    """
    from mobile_export.serve import server

    with contextlib.suppress(KeyboardInterrupt), server(folder, port) as web:
        address = f"http://127.0.0.1:{web.server_address[1]}/"
        logging.getLogger(__name__).info("Open %s in a browser. Ctrl+C ends it.", address)
        web.serve_forever()
    return {"address": address}, ["Ended."]
