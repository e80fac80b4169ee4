"""A plain HTTP server on the loopback, as those in front of data are: files with ranges, folders as pages of links."""

import hashlib
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Files:
    """The server's state: path → bytes; `fail`, statuses for the next requests of bytes; `sent`, the bytes of every
    answer; without `ranges`, files are sent whole."""

    def __init__(self):
        self.files, self.fail, self.sent, self.ranges, self.queries = {}, [], [], True, set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        state, url = self.server.state, urlsplit(self.path)
        state.queries.add(url.query)
        path = unquote(url.path)
        data, asked = state.files.get(path), re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
        if data is None:
            names = {name.removeprefix(path).partition("/")[0] for name in state.files if name.startswith(path)}
            self.reply(200 if names else 404, "".join(f'<a href="{name}">{name}</a>' for name in names).encode())
        elif asked and state.fail and self.command == "GET":
            self.reply(state.fail.pop(0), b"busy")
        elif asked and state.ranges:
            first, last = map(int, asked.groups())
            self.reply(206, data[first : last + 1], data, [("Content-Range", f"bytes {first}-{last}/{len(data)}")])
        else:
            self.reply(200, data, data)

    do_HEAD = do_GET

    def reply(self, status, body, file=None, headers=()):
        tags = [("ETag", hashlib.sha1(file).hexdigest())] if file is not None else []
        kind = ("Content-Type", "application/x-tar" if file is not None else "text/html")
        self.send_response(status)
        for name, value in [("Content-Length", str(len(body))), kind, *tags, *headers]:
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.server.state.sent.append(len(body))
            self.wfile.write(body)


@contextmanager
def serving():
    """(the server's state, its address) while it runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.state = Files()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.state, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
