"""The registry of source layouts: what `folder:PATH` means, and which layout the data at a path has."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from dmgd.errors import UsageError
from dmgd.specs import is_url, shown_url

if TYPE_CHECKING:  # the command line lists the kinds without the libraries that they need
    from dmgd.sources.source import Layout


def _is_shards(location: str) -> bool:
    is_tar = location.endswith((".tar", ".tar.gz", ".tgz"))
    return is_tar or any(any(Path(location).expanduser().glob(pattern)) for pattern in ("*.tar", "data/*.tar"))


def _is_hugging_face(location: str) -> bool:
    path = Path(location).expanduser()
    patterns = ("dataset_dict.json", "dataset_info.json", "state.json", "*.parquet", "*/*.parquet", "*.arrow")
    return path.suffix == ".parquet" or any(any(path.glob(pattern)) for pattern in patterns)


@dataclass(frozen=True)
class Kind:
    """How the data of one kind is opened.

    `open(location, **options)` returns the layout, or raises UsageError for missing data; as "module:name" it is
    imported on first use. `argument` is the metavar after the colon in the help, `options` which of "variant" and
    "columns" `open` takes. `recognises(location)`: whether data named without a kind has this layout.
    """

    open: "Callable[..., Layout] | str"
    argument: str = "PATH"
    options: tuple[str, ...] = ()
    recognises: Callable[[str], bool] = lambda location: False


# A new layout is one more entry.
KINDS: dict[str, Kind] = {
    "folder": Kind(
        "dmgd.sources.folder:FolderLayout.open", recognises=lambda location: Path(location).expanduser().exists()
    ),
    "hf": Kind(
        "dmgd.sources.hf_opening:open_hugging_face",
        argument="ID_OR_PATH",
        options=("variant", "columns"),
        recognises=_is_hugging_face,
    ),
    "wds": Kind("dmgd.sources.shards:ShardLayout.open", argument="PATTERN", recognises=_is_shards),
}


def prefixes() -> list[str]:
    """The kinds as a user types them, such as "folder:PATH"."""
    return [f"{name}:{kind.argument}" for name, kind in KINDS.items()]


def layout_of(location: str) -> str | None:
    """The name of the last registered layout that recognises the data at `location`, or None."""
    return next((name for name, kind in reversed(KINDS.items()) if kind.recognises(location)), None)


def open_layout(location: str, variant: str | None = None, columns: str | None = None) -> "Layout":
    """The layout of the data at `location`, "kind:…"; without a kind, the last registered that recognises the files.

    Raises UsageError for missing data, and for an option that the layout does not take.
    """
    name, _, rest = location.partition(":")
    if name not in KINDS or not rest:
        if is_url(location) and layout_of(location) is None:
            raise UsageError(f"it is not clear what is at {shown_url(location)}; give wds: or hf: before it")
        if (recognised := layout_of(location)) is None:
            raise UsageError(f"the data {location} does not exist; give --data a folder, parquet or WebDataset shards")
        name, rest = recognised, location
    kind, options = KINDS[name], {"variant": variant, "columns": columns}
    if misplaced := [f"--{key}" for key, value in options.items() if value is not None and key not in kind.options]:
        raise UsageError(f"{' and '.join(misplaced)} belong to Hugging Face datasets, not to {name}:{rest}")
    opened = resolve_name(kind.open) if isinstance(kind.open, str) else kind.open
    return opened(rest, **{key: options[key] for key in kind.options})
