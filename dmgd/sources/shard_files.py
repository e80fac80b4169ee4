"""Which shards a folder, a glob or a series like `train-{000..099}.tar` stands for, here or at a URL."""

import glob
import math
import re
from pathlib import Path

from dmgd.classes.info import natural_key
from dmgd.errors import UsageError
from dmgd.sources import remote
from dmgd.sources.remote import RemoteFile
from dmgd.sources.source import is_hidden
from dmgd.specs import shown_url

SUFFIXES = (".tar", ".tar.gz", ".tgz")
SHARDS = ("*.tar", "*.tar.gz", "*.tgz", "data/*.tar", "data/*.tar.gz", "data/*.tgz")
_BRACES = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_MOST_SHARDS = 1_000_000


def expand(pattern: str) -> list[Path]:
    """The local shards that a pattern stands for. Raises UsageError if there are none, or if one of a numbered series
    is missing."""
    path = Path(pattern).expanduser()
    if pattern.startswith("pipe:"):
        raise UsageError(f"wds:{pattern} is a command, which is not run; give a URL, or download the shards")
    if path.is_dir():
        found = [file for pattern in SHARDS for file in path.glob(pattern) if not is_hidden(file.name)]
        files = sorted(found, key=lambda file: natural_key(str(file)))
    elif path.exists():  # whatever its name means as a pattern
        files = [path]
    elif _BRACES.search(pattern):
        files = [Path(one).expanduser() for one in _series(pattern)]
        if missing := [str(file) for file in files if not file.is_file()]:
            raise _missing(missing, len(files))
    else:
        files = sorted(Path(one) for one in glob.glob(str(path)))  # noqa: PTH207 (an absolute pattern)
    if not files:
        raise _no_shards(pattern)
    return files


def expand_url(pattern: str) -> list[RemoteFile]:
    """The shards that a pattern in a URL stands for. Raises as `expand`, and ArtifactError if it cannot be reached."""
    if _BRACES.search(pattern):
        urls = list(_series(pattern))
        found = remote.files_at(urls) if urls else []
        if missing := [shown_url(url) for url, file in zip(urls, found, strict=True) if file is None]:
            raise _missing(missing, len(urls))
    elif shown_url(pattern).endswith(SUFFIXES) or not remote.is_folder(pattern):
        found = list(remote.matching(pattern))
    else:
        patterns = [f"{pattern.rstrip('/')}/{one}" for one in SHARDS]
        found = [file for one in patterns for file in remote.matching(one) if not is_hidden(file.name)]
    if not (files := [file for file in found if file]):
        raise _no_shards(shown_url(pattern))
    return sorted(files, key=lambda file: natural_key(file.url))


def _no_shards(pattern: str) -> UsageError:
    return UsageError(f"no WebDataset shards at {pattern}; give a folder, a glob or train-{{000..099}}.tar")


def _missing(missing: list[str], of: int) -> UsageError:
    return UsageError(f"{len(missing)} of {of} shards are missing, the first is {missing[0]}")


def _series(pattern: str) -> list[str]:
    """What a pattern with number ranges in braces stands for. Raises UsageError if that is too much."""
    ranges = _BRACES.findall(pattern)
    if math.prod(max(int(last) - int(first) + 1, 0) for first, last in ranges) > _MOST_SHARDS:
        raise UsageError(f"wds:{shown_url(pattern)} means more than {_MOST_SHARDS:,} shards; give their folder")
    return _expanded(pattern)


def _expanded(pattern: str) -> list[str]:
    if (match := _BRACES.search(pattern)) is None:
        return [pattern]
    first, last = match.groups()
    numbers = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return [one for n in numbers for one in _expanded(pattern[: match.start()] + n + pattern[match.end() :])]
