"""The web page of web/ with the exported models of a folder, served on this machine alone.

A request is looked up in a table of the files that are served, made at the start: its path never
reaches the file system.
"""

import json
import logging
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

from keras_compress.files import sha256_of
from mobile_export.contract import LABELS, MODEL, VECTORS, VOCABULARY, read_model
from mobile_export.stamp import check_stamp

log = logging.getLogger(__name__)
WEB = Path(__file__).parent / "web"
PAGE = ("index.html", "app.js", "engines.js", "model.js", "style.css")
PACKAGES = (
    "node_modules/@litertjs/core",
    "node_modules/@litertjs/wasm-utils",
    "node_modules/@mediapipe/tasks-text",
)
BESIDE = (MODEL, VOCABULARY, LABELS, VECTORS)
OWN_NAMES = ("127.0.0.1", "localhost")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".txt": "text/plain; charset=utf-8",
    ".tflite": "application/octet-stream",
}


def server(folder, port=8000):
    """A server on 127.0.0.1 that is ready to `serve_forever`; its address is `server_address`.

    Args:
        folder: of a run, or of exported files. The page offers the .tflite files that a model.json beside them tells of,
            in LiteRT.js, and those with MediaPipe's metadata in MediaPipe, too.
        port: 0 for any that is free.
    Raises:
        ValueError: if the folder holds no such file or a damaged one, node modules are missing, or the port is taken.
    """
    folder = Path(folder).resolve()
    listed, shown = _models(folder)
    if not listed:
        raise ValueError(
            f"The folder must hold .tflite files beside their {MODEL}, or with MediaPipe's metadata. Received: {folder}, "
            "which has none. Give the folder of a `run` or what `export` wrote."
        )
    missing = [name for name in PACKAGES if not (WEB / name).is_dir()]
    if missing:
        raise ValueError(
            f"The page needs its node modules. Received: {WEB}, which lacks {', '.join(missing)}. Install "
            f"Node.js, then run `npm ci` in {WEB}."
        )
    package = (path for name in PACKAGES for path in (WEB / name).rglob("*"))
    files = {
        "/": WEB / "index.html",
        **{f"/{name}": WEB / name for name in PAGE},
        **{f"/{p.relative_to(WEB).as_posix()}": p for p in package if p.suffix in TYPES},
        **{f"/files/{name}": path for name, path in shown.items()},
    }

    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # seconds; a connection that says nothing ends

        def do_GET(self):
            path = unquote(self.path.partition("?")[0])
            file = files.get(path)
            if self.headers.get("Host", "").partition(":")[0] not in OWN_NAMES:
                return self.send_error(403)  # another site's name that leads to this machine
            if path == "/models.json":
                content, kind = json.dumps(listed).encode(), TYPES[".json"]
            elif file and file.is_file() and (file.resolve() == file or file not in shown.values()):
                content, kind = file.read_bytes(), TYPES[file.suffix]
            else:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-cache")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Keeps requests off the terminal."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"`port` must be free, and 0 to 65535. Received: {port} ({error}). Choose another with `--port`."
        ) from error


def _models(folder):
    """(rows of models.json, {name: file} that the page may read); no name leads out of the folder."""

    def inside(path):
        return path.is_file() and folder in path.resolve().parents

    def name_of(path):
        return path.relative_to(folder).as_posix()

    listed, files = [], {}
    for path in filter(inside, sorted(folder.rglob("*.tflite"))):
        check_stamp(path, path.read_bytes())
        beside = [*filter(inside, map(path.with_name, BESIDE))]
        told = read_model(path.parent)["files"] if path.with_name(MODEL) in beside else []
        known = (path.name, sha256_of(path)) in [(row["path"], row["sha256"]) for row in told]
        engines = ["LiteRT"] * known + ["MediaPipe"] * zipfile.is_zipfile(path)
        if not engines:
            log.warning("warning: not on the page, as no %s tells of it: %s", MODEL, path)
            continue
        files |= {name_of(each): each.resolve() for each in (path, *beside * known)}
        name = name_of(path).removeprefix("models/").removesuffix(".tflite")
        for engine in engines:
            row = {"name": f"{name} · {engine}" if engine != engines[0] else name, "engine": engine}
            row |= {"path": f"files/{quote(name_of(path))}", "bytes": path.stat().st_size}
            listed.append(
                row | {"parity": engine == "LiteRT" and path.with_name(VECTORS) in beside}
            )
    return listed, files
