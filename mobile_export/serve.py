"""The web page of web/ with the exported models of a folder, served on this machine alone.

A request is looked up in a table of the files that are served, made at the start: its path never
reaches the file system.
"""

import json
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

from mobile_export.stamp import check_stamp

WEB = Path(__file__).parent / "web"
PAGE = ("index.html", "app.js", "style.css")
PACKAGE = "node_modules/@mediapipe/tasks-text"
OWN_NAMES = ("127.0.0.1", "localhost")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".tflite": "application/octet-stream",
}


def server(folder, port=8000):
    """A server on 127.0.0.1 that is ready to `serve_forever`; its address is `server_address`.

    Args:
        folder: of a run, or of exported files; .tflite files with metadata (classifiers) are offered
            on the page.
        port: 0 for any that is free.
    Raises:
        ValueError: if the folder holds no such file or a damaged one, node modules are missing, or the port is taken.
    """
    folder = Path(folder).resolve()
    # Metadata end in a zip archive.
    models = {
        path.relative_to(folder).as_posix(): path.resolve()
        for path in filter(Path.is_file, sorted(folder.rglob("*.tflite")))
        if folder in path.resolve().parents and zipfile.is_zipfile(path)
    }
    if not models:
        raise ValueError(
            "The folder must hold classifiers as .tflite files with metadata. Received: "
            f"{folder}, which has none. Give the folder of a `run` or what `export` wrote."
        )
    for path in models.values():
        check_stamp(path, path.read_bytes())
    if not (WEB / PACKAGE).is_dir():
        raise ValueError(
            f"The page needs its node modules: {WEB / 'node_modules'} does not hold them. Install "
            f"Node.js, then run `npm ci` in {WEB}."
        )
    package = (WEB / PACKAGE).rglob("*")
    files = {
        "/": WEB / "index.html",
        **{f"/{name}": WEB / name for name in PAGE},
        **{f"/{p.relative_to(WEB).as_posix()}": p for p in package if p.suffix in TYPES},
        **{f"/files/{name}": path for name, path in models.items()},
    }
    listed = [
        {
            "name": name.removeprefix("models/").removesuffix(".tflite"),
            "path": f"files/{quote(name)}",
            "bytes": path.stat().st_size,
        }
        for name, path in models.items()
    ]

    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # seconds; a connection that says nothing ends

        def do_GET(self):
            path = unquote(self.path.partition("?")[0])
            file = files.get(path)
            if self.headers.get("Host", "").partition(":")[0] not in OWN_NAMES:
                return self.send_error(403)  # another site's name that leads to this machine
            if path == "/models.json":
                content, kind = json.dumps(listed).encode(), TYPES[".json"]
            elif (
                file and file.is_file() and (file.resolve() == file or file not in models.values())
            ):
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
