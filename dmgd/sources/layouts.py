"""The layouts of labelled data by kind: what `folder:PATH` means, and which kind lies at a path."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from dmgd.errors import UsageError

if TYPE_CHECKING:  # the command line lists the kinds without the libraries that they need
    from dmgd.sources.source import Layout


def _is_shards(place: str) -> bool:
    is_tar = place.endswith((".tar", ".tar.gz", ".tgz"))
    return is_tar or any(any(Path(place).expanduser().glob(pattern)) for pattern in ("*.tar", "data/*.tar"))


def _is_hugging_face(place: str) -> bool:
    path = Path(place).expanduser()
    patterns = ("dataset_dict.json", "dataset_info.json", "state.json", "*.parquet", "*/*.parquet", "*.arrow")
    return path.suffix == ".parquet" or any(any(path.glob(pattern)) for pattern in patterns)


@dataclass(frozen=True)
class Kind:
    """How the data of one kind is opened.

    `open(place, **options)` gives the layout, or raises UsageError for data that is not there; as "module:name" it is
    imported when it is used. `argument` is what help says behind the colon, `options` which of "variant" and "columns"
    it takes. `recognises(place)` says whether data that was named without a kind is of this one.
    """

    open: "Callable[..., Layout] | str"
    argument: str = "PATH"
    options: tuple[str, ...] = ()
    recognises: Callable[[str], bool] = lambda place: False


# A new layout is one more entry.
KINDS: dict[str, Kind] = {
    "folder": Kind("dmgd.sources.folder:FolderLayout.open", recognises=lambda place: Path(place).expanduser().exists()),
    "hf": Kind(
        "dmgd.sources.huggingface:open_hugging_face",
        argument="ID_OR_PATH",
        options=("variant", "columns"),
        recognises=_is_hugging_face,
    ),
    "wds": Kind("dmgd.sources.shards:ShardLayout.open", argument="PATTERN", recognises=_is_shards),
}


def prefixes() -> list[str]:
    """The kinds as a user types them, such as "folder:PATH"."""
    return [f"{name}:{kind.argument}" for name, kind in KINDS.items()]


def open_layout(place: str, variant: str | None = None, columns: str | None = None) -> "Layout":
    """The layout of the data at `place`, "kind:…", or without a kind, which is then seen from the files.

    Raises UsageError if there is nothing, or an option that this layout does not have.
    """
    name, _, rest = place.partition(":")
    if name not in KINDS or not rest:
        name, rest = _kind_of(place), place
    kind, options = KINDS[name], {"variant": variant, "columns": columns}
    if misplaced := [f"--{key}" for key, value in options.items() if value is not None and key not in kind.options]:
        raise UsageError(f"{' and '.join(misplaced)} belong to Hugging Face datasets, not to {name}:{rest}")
    opened = resolve_name(kind.open) if isinstance(kind.open, str) else kind.open
    return opened(rest, **{key: options[key] for key in kind.options})


def _kind_of(place: str) -> str:
    """The kind of what lies at `place`; those that were added last are asked first. Raises UsageError for nothing."""
    for name in reversed(KINDS):
        if KINDS[name].recognises(place):
            return name
    raise UsageError(f"the data {place} does not exist; give --data a folder, parquet or WebDataset shards")
