"""Exports at URLs of any protocol that fsspec writes to: made locally, then sent file by file, the index last."""

from pathlib import Path
from typing import Any

from dmgd.errors import ArtifactError, MismatchError, UsageError, listed, one_line
from dmgd.exporters.folder import INDEX
from dmgd.progress import Progress
from dmgd.sources.remote import failures, filesystem
from dmgd.specs import shown_url


def require_writable(url: str) -> None:
    """Raise UsageError if exports are not written to URLs of this protocol, ArtifactError if it cannot be reached."""
    protocol = url.partition("://")[0]
    instead = {"hf": "give --push-to-hub USER/NAME", "file": "give the path alone"}
    if protocol in ("http", "https", *instead):
        raise UsageError(
            f"nothing is exported to {protocol}://; {instead.get(protocol, 'export to a folder, and copy that')}"
        )
    _sizes(url)


def send(folder: Path, index: dict[str, Any], url: str, progress: Progress) -> None:
    """Send the export in `folder` to `url`, the index last: an export that has one is complete. What an interrupted
    call sent is overwritten; if the export is there already, nothing is sent.

    Raises UsageError if there are other files, MismatchError if there is another export, and then sends nothing.
    """
    fs, root = filesystem(url)
    sizes = {file["path"]: file["bytes"] for file in index["files"]} | {INDEX: (folder / INDEX).stat().st_size}
    found = _sizes(url)
    if others := sorted(found.keys() - sizes.keys()):
        raise UsageError(
            f"{shown_url(url)} has files that are no part of this export ({one_line(listed(others, 3))}); choose "
            "another --out, or remove them"
        )
    with failures(url):
        if INDEX in found and fs.cat_file(f"{root}/{INDEX}") != (folder / INDEX).read_bytes():
            raise MismatchError(f"{shown_url(url)} has another export; choose another --out")
        if found == sizes:
            progress.note(f"{shown_url(url)} has this export already, with all its files in their sizes")
            return
        with progress.task("send", len(sizes), "files") as task:
            for path in sorted(sizes, key=lambda path: path == INDEX):
                fs.put_file(str(folder / path), f"{root}/{path}")
                task.advance()
    if (sent := _sizes(url)) != sizes:
        differing = sorted(path for path in sent.keys() | sizes.keys() if sent.get(path) != sizes.get(path))
        raise ArtifactError(
            f"{shown_url(url)} did not keep what was sent ({listed(differing, 3)}): is somebody else writing there? "
            "Remove it, and repeat the command"
        )


def _sizes(url: str) -> dict[str, int]:
    """The size of every file at the URL, by its path there."""
    fs, root = filesystem(url)
    with failures(url):
        fs.invalidate_cache()
        return {path.removeprefix(root).strip("/"): info["size"] for path, info in fs.find(root, detail=True).items()}
