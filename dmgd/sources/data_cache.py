"""Downloaded data in the user's cache: a folder that exists only if it is whole."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from platformdirs import user_cache_path

from dmgd.guard import guarded


def data_folder(name: str) -> Path:
    """The folder of the data called `name`, which need not exist."""
    return user_cache_path("dmgd") / "data" / name


def filled(folder: Path, fill: Callable[[Path], Path]) -> Path:
    """`folder`, made by `fill` if it does not exist.

    `fill(work)` gets a folder of our own, one process at a time, where what an interrupted call left is still there; it
    returns the folder in it that is to become `folder`.
    """
    work = folder.with_name(f"{folder.name}.unfinished")
    with guarded(work):
        if not folder.is_dir():
            fill(work).replace(folder)
            for left in work.iterdir():
                if left.is_dir():
                    rmtree(left)
    with suppress(OSError):
        work.rmdir()
    return folder
