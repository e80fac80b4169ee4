"""A fake Hub on the loopback: the calls that the client makes to upload a dataset; it keeps the files."""

import base64
import hashlib
import json
import re
import socket
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """The server's state. `fail[call]` is a list of statuses (0: drop the connection) for the next such calls."""

    def __init__(self):
        self.repos = {}  # (name, branch) → {path: bytes}
        self.private, self.objects, self.calls, self.fail, self.tokens = {}, {}, Counter(), {}, set()


def oid(data, is_lfs):
    return hashlib.sha256(data).hexdigest() if is_lfs else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(path):
    return not path.endswith((".md", ".json", ".jsonl"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def reply(self, value=None, status=200, headers=(), data=None):
        data = json.dumps(value if value is not None else {}).encode() if data is None else data
        self.send_response(status)
        for name, content in (("Content-Length", str(len(data))), *headers):
            self.send_header(name, content)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_call(self):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        hub.tokens.add(self.headers.get("Authorization"))
        length = int(self.headers.get("Content-Length") or 0)
        name, match = next((n, m) for n, pattern in CALLS.items() if (m := re.fullmatch(pattern, path)))
        hub.calls[name] += 1
        if hub.fail.get(name):
            status = hub.fail[name].pop(0)
            if status == 0:  # break off in the middle of the body
                self.rfile.read(length // 2)
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.rfile.read(length)
            self.reply({"error": "refused"}, status)
            return
        body = self.rfile.read(length)
        getattr(self, name)(hub, body, **match.groupdict())

    do_GET = do_POST = do_PUT = do_HEAD = handle_call

    def create(self, hub, body):
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
        exists = (name, "main") in hub.repos
        if not exists:
            hub.repos[name, "main"], hub.private[name] = (
                {},
                wanted.get("private") or wanted.get("visibility") == "private",
            )
        address = f"http://{self.headers['Host']}/datasets/{name}"
        self.reply({"url": address, "name": name, "id": name}, 409 if exists else 200)

    def branch(self, hub, body, repo, rev):
        exists = (repo, rev) in hub.repos
        hub.repos.setdefault((repo, rev), dict(hub.repos[repo, "main"]))
        self.reply({"error": "exists"} if exists else {}, 409 if exists else 200)

    def validate(self, hub, body):
        self.reply({"errors": [], "warnings": []})

    def preupload(self, hub, body, repo, rev):
        here = hub.repos[repo, rev]
        files = [
            {
                "path": (path := file["path"]),
                "uploadMode": "lfs" if is_lfs(path) else "regular",
                "shouldIgnore": False,
                "oid": oid(here[path], is_lfs(path)) if path in here else None,
            }
            for file in json.loads(body)["files"]
        ]
        self.reply({"files": files})

    def batch(self, hub, body, repo):
        def actions(entry):
            if entry["oid"] in hub.objects:
                return {}
            return {"actions": {"upload": {"href": f"http://{self.headers['Host']}/lfs/{entry['oid']}"}}}

        objects = [{**entry, **actions(entry)} for entry in json.loads(body)["objects"]]
        self.reply({"transfer": "basic", "objects": objects})

    def upload(self, hub, body, digest):
        assert hashlib.sha256(body).hexdigest() == digest
        hub.objects[digest] = body
        self.reply()

    def commit(self, hub, body, repo, rev):
        files = dict(hub.repos[repo, rev])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        hub.repos[repo, rev] = files
        self.reply(
            {
                "success": True,
                "commitOid": "0" * 40,
                "commitUrl": f"http://{self.headers['Host']}/datasets/{repo}/commit/0",
            }
        )

    def info(self, hub, body, repo, rev=None):
        known = (repo, rev or "main") in hub.repos
        self.reply({"id": repo, "sha": "0" * 40, "siblings": []}, 200 if known else 404)

    def resolve(self, hub, body, repo, rev, path):
        data = hub.repos[repo, rev].get(path)
        if data is None:
            self.reply({}, 404, [("X-Error-Code", "EntryNotFound")])
            return
        self.reply(data=data, headers=[("ETag", f'"{oid(data, False)}"'), ("X-Repo-Commit", "0" * 40)])

    def other(self, hub, body):
        self.reply({}, 404)


REPO, REV = r"(?P<repo>[^/]+/[^/]+)", r"(?P<rev>[^/]+)"
CALLS = {
    "create": "/api/repos/create",
    "branch": f"/api/datasets/{REPO}/branch/{REV}",
    "validate": "/api/validate-yaml",
    "preupload": f"/api/datasets/{REPO}/preupload/{REV}",
    "batch": rf"/datasets/{REPO}\.git/info/lfs/objects/batch",
    "upload": "/lfs/(?P<digest>[0-9a-f]{64})",
    "commit": f"/api/datasets/{REPO}/commit/{REV}",
    "info": f"/api/datasets/{REPO}(?:/revision/{REV})?",
    "resolve": f"/datasets/{REPO}/resolve/{REV}/(?P<path>.+)",
    "other": "/.*",
}


@contextmanager
def running_hub():
    """(the hub's state, its address) while the server runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.hub = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
