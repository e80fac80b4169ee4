"""A fake Hub on the loopback: the calls that clients make to upload and download; it keeps the files. And archives."""

import base64
import hashlib
import json
import re
import socket
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, unquote, urlsplit


class Hub:
    """The server's state. `fail[call]` is a list of statuses (0: drop the connection) for the next such calls."""

    def __init__(self):
        self.repos = {}  # (name, branch) → {path: bytes}
        self.archives, self.ranges, self.sent = {}, [], None  # name → bytes; the ranges asked; most bytes of an answer
        self.private, self.objects, self.calls, self.fail, self.tokens = {}, {}, Counter(), {}, set()


def oid(data, is_lfs):
    return hashlib.sha256(data).hexdigest() if is_lfs else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(path):
    return not path.endswith((".md", ".json", ".jsonl"))


def commit_of(repo, branch):
    return hashlib.sha1(f"{repo}@{branch}".encode()).hexdigest()


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
        hub, path = self.server.hub, urlsplit(self.path).path
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
        getattr(self, name)(hub, body, **{key: text and unquote(text) for key, text in match.groupdict().items()})

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

    def files(self, hub, repo, rev):
        """(branch, its files) of a branch or commit; None if there is none."""
        known = ((b, files) for (r, b), files in hub.repos.items() if r == repo and rev in (b, commit_of(r, b)))
        return next(known, None)

    def info(self, hub, body, repo, rev=None):
        if not (found := self.files(hub, repo, rev or "main")):
            self.reply({}, 404, [("X-Error-Code", "RevisionNotFound")])
            return
        siblings = [{"rfilename": path} for path in found[1]]
        self.reply({"id": repo, "sha": commit_of(repo, found[0]), "siblings": siblings})

    def tree(self, hub, body, repo, rev, path=None):
        found, top = self.files(hub, repo, rev), f"{path}/" if path else ""
        inside = [name for name in found[1] if name.startswith(top)] if found else []
        if not inside:
            self.reply({}, 404, [("X-Error-Code", "EntryNotFound" if found else "RevisionNotFound")])
            return
        is_deep = "recursive=true" in self.path.lower()
        shown = {name if is_deep else top + name[len(top) :].split("/")[0] for name in inside}
        shown |= (
            {str(parent) for name in inside for parent in PurePosixPath(name).parents} - {"."} if is_deep else set()
        )
        self.reply([self.entry(found[1], name) for name in sorted(shown)])

    def paths(self, hub, body, repo, rev):
        files = self.files(hub, repo, rev)[1]
        wanted = [path for key, path in parse_qsl(body.decode()) if key == "paths"]
        there = [path for path in wanted if any(name == path or name.startswith(f"{path}/") for name in files)]
        self.reply([self.entry(files, path) for path in there])

    def entry(self, files, path):
        if path not in files:
            return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        return {"type": "file", "path": path, "oid": oid(files[path], False), "size": len(files[path])}

    def resolve(self, hub, body, repo, rev, path):
        branch, files = self.files(hub, repo, rev) or (None, {})
        data = files.get(path)
        if data is None:
            self.reply({}, 404, [("X-Error-Code", "EntryNotFound" if branch else "RevisionNotFound")])
            return
        if asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or ""):
            self.reply(data=data[int(asked[1]) : int(asked[2]) + 1], status=206)
            return
        self.reply(data=data, headers=[("ETag", f'"{oid(data, False)}"'), ("X-Repo-Commit", commit_of(repo, branch))])

    def archive(self, hub, body, name):
        data, first = hub.archives.get(name), int((self.headers["Range"] or "bytes=0-")[6:-1])
        hub.ranges.append(first)
        if data is None:
            self.reply({}, 404)
            return
        self.send_response(206)
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        self.wfile.write(data[first:][: hub.sent])
        self.close_connection = True

    def other(self, hub, body):
        self.reply({}, 404)


API, REPO, REV = "/api/(?:datasets|models)", r"(?P<repo>[^/]+/[^/]+)", r"(?P<rev>[^/]+)"
CALLS = {
    "create": "/api/repos/create",
    "branch": f"/api/datasets/{REPO}/branch/{REV}",
    "validate": "/api/validate-yaml",
    "preupload": f"/api/datasets/{REPO}/preupload/{REV}",
    "batch": rf"/datasets/{REPO}\.git/info/lfs/objects/batch",
    "upload": "/lfs/(?P<digest>[0-9a-f]{64})",
    "commit": f"/api/datasets/{REPO}/commit/{REV}",
    "info": f"{API}/{REPO}(?:/revision/{REV})?",
    "tree": f"{API}/{REPO}/tree/{REV}(?:/(?P<path>.+))?",
    "paths": f"{API}/{REPO}/paths-info/{REV}",
    "resolve": f"(?:/datasets)?/{REPO}/resolve/{REV}/(?P<path>.+)",
    "archive": "/archives/(?P<name>.+)",
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


@contextmanager
def downloading(monkeypatch, cache):
    """The hub's state while this process downloads data, weights and archives from it, into `cache`, without delays."""
    import datasets.config
    from huggingface_hub import constants

    with running_hub() as (hub, address):
        for module, name, value in [
            (constants, "HF_HUB_OFFLINE", False),
            (constants, "ENDPOINT", address),
            (constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"),
            (constants, "HF_HUB_DISABLE_XET", True),
            (constants, "HF_HUB_CACHE", str(cache / "hub")),
            (datasets.config, "HF_HUB_OFFLINE", False),
            (datasets.config, "HF_ENDPOINT", address),
            (datasets.config, "HUB_DATASETS_URL", address + "/datasets/{repo_id}/resolve/{revision}/{path}"),
            (datasets.config, "HF_DATASETS_CACHE", cache / "datasets"),
        ]:
            monkeypatch.setattr(module, name, value)
        monkeypatch.setenv("HF_DATASETS_CACHE", str(cache / "datasets"))
        monkeypatch.setenv("DMGD_ARCHIVES", f"{address}/archives")
        monkeypatch.setattr("logging.raiseExceptions", False)  # the client's log holds on to an earlier test's stderr
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield hub
