"""The verbs of exported files: written, timed and shown. What verbs declare and give: verbs.py."""

import contextlib
import logging
import os
import re
from typing import Annotated

from pydantic import Field

from keras_compress.cli.options import AnySource, Source, Texts
from keras_compress.method import Count


def export(
    *,
    source: Source,
    texts: Texts,
    out,
    overwrite=False,
    formats="float32,int8",
    onnx=False,
    length: int = 64,
    allow_drift=False,
    parity_texts: Count | None = None,
):
    """Write .tflite files, each checked against Keras. One that fails does not keep the others back.

    formats: of float32, float16, int8, int8_per_tensor, int4, int2, onnx_float32, onnx_int8
    onnx: float32.onnx and int8.onnx for ONNX Runtime, too
    length: fixed sequence length in pieces
    parity_texts: how many dev texts to compare a file on (default: 200 for floats, all for others, fewer
        where a pass is slow)
    """
    from mobile_export import convert
    from mobile_export.parity import in_words

    names = [*formats.split(","), *(convert.ONNX_FORMATS if onnx else ())]
    paths = [f"{out}/{convert.file_name(name)}" for name in names if name in convert.FORMATS]
    there = [path for path in (out, *paths) if os.path.isfile(path)]
    if there and not overwrite:
        raise ValueError(
            f"Exported files are not replaced without `--overwrite`. Received: {', '.join(there)}. "
            "Choose another folder, or pass `--overwrite`."
        )
    model, dataset = source.load(texts.given(), texts.task)
    dev = dataset and dataset.dev
    settings = {"sequence_length": length, "allow_drift": allow_drift, "parity_texts": parity_texts}
    failures = {}
    try:
        rows = convert.export(model, out, names, dev=dev, **settings)
    except convert.ExportError as error:
        rows, failures = error.files, error.failures
    form = "{path}: {bytes:,} bytes ({gzip_bytes:,} after gzip), {parts}"
    lines = []
    for row in rows:
        parts = f"{row['partitions']} XNNPACK part(s), " if row["partitions"] else ""
        lines.append(form.format(**row, parts=parts) + in_words(row))
    reasons = convert.reasons_without_metadata(rows)
    lines += [f"The .tflite files hold no metadata: {reason}." for reason in reasons]
    rows += [{"format": name, "failed": why} for name, why in failures.items()]
    return rows, lines, " ".join(failures.values())


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
