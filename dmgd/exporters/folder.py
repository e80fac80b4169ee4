"""An export's folder, which is filled aside and becomes whole at the end, wherever the work stops: `index.json`, which
lists what it holds, is written last, so that its presence says that the export is whole."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dmgd.errors import ArtifactError, MismatchError, UsageError
from dmgd.files import LOCK, locked_folder
from dmgd.progress import Progress

FORMAT = 3
INDEX = "index.json"
STAGING = ".dmgd-unfinished"


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a finished export. Raises UsageError if the folder has none, ArtifactError for one that is damaged
    or of another version."""
    try:
        index = json.loads((folder / INDEX).read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{folder} is not an export (it has no {INDEX}); make one with dmgd export") from error
    except ValueError as error:
        raise ArtifactError(f"{folder / INDEX} is damaged ({error}); export the run again to a new folder") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT or "files" not in index:
        raise ArtifactError(f"{folder / INDEX} is not an index of this version of dmgd; export the run again")
    return index


@contextmanager
def output_folder(out: Path) -> Iterator[None]:
    """Hold `out` as the only writer. What an earlier attempt left unfinished there is removed, and nothing else.

    Raises UsageError if `out` is something else than a new or empty folder or an export.
    """
    with locked_folder(out):
        _remove_leftover(out)
        others = [path.name for path in out.iterdir() if path.name != LOCK]
        if others and INDEX not in others:
            raise UsageError(
                f"{out} holds something else ({min(others)}) and no export; choose a new or empty --out folder"
            )
        yield


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A new folder to write to; when the block ends well, its files are moved to `out`, the index last.

    It lies within `out`, which may be a mount point, and is removed when the block fails.
    """
    staging = out / STAGING
    staging.mkdir()
    try:
        yield staging
        files = [path.relative_to(staging) for path in staging.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: (path == Path(INDEX), path)):
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (staging / path).replace(out / path)
        shutil.rmtree(staging)
    except BaseException:
        _remove_leftover(out)
        raise


def _remove_leftover(out: Path) -> None:
    """Remove an unfinished export: what is still aside, and what was moved already."""
    staging = out / STAGING
    if (staging / INDEX).exists():
        for file in read_index(staging)["files"]:
            path = out / file["path"]
            if not (staging / file["path"]).exists():
                path.unlink(missing_ok=True)
            with suppress(OSError):
                path.parent.rmdir() if path.parent != out else None
    if staging.exists():
        shutil.rmtree(staging)


def same_export(out: Path, wanted: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The index of the export at `out`. Raises MismatchError if it is not the one wanted."""
    index = read_index(out)
    if differing := sorted(key for key in wanted if index.get(key) != wanted[key]):
        raise MismatchError(f"{out} holds another export (other {', '.join(differing)}); choose another --out folder")
    missing = [file["path"] for file in index["files"] if not (out / file["path"]).exists()]
    if missing:
        raise ArtifactError(f"{out / missing[0]} is missing from the export; choose another --out folder")
    progress.note(f"{out} holds this export already; dmgd verify {out} checks it")
    return index
