"""From a path to the layout that lies there."""

from pathlib import Path

from dmgd.errors import UsageError
from dmgd.sources.layout import Layout


def open_layout(kind: str | None, place: str, variant: str | None, columns: str | None) -> Layout:
    """The layout of the data at `place`; `kind` folder, hf or wds, or None to see from the files.

    Raises UsageError if there is nothing, or an option that this layout does not have.
    """
    if kind is None:
        prefix, _, rest = place.partition(":")
        kind, place = (prefix, rest) if prefix in ("folder", "hf", "wds") and rest else (kind_of(place), place)
    given = {"--variant": variant, "--columns": columns}
    if kind != "hf" and (misplaced := [option for option, value in given.items() if value is not None]):
        raise UsageError(f"{' and '.join(misplaced)} belong to Hugging Face datasets, not to {kind}:{place}")
    if kind == "folder":
        from dmgd.sources.folder import FolderLayout

        return FolderLayout.open(Path(place).expanduser())
    if kind == "wds":
        from dmgd.sources.shards import ShardLayout

        return ShardLayout.open(place)
    from dmgd.sources.huggingface import open_hugging_face

    return open_hugging_face(place, variant, columns)


def kind_of(place: str) -> str:
    """folder, hf or wds, from what lies at `place`. Raises UsageError if there is nothing."""
    path = Path(place).expanduser()
    if path.suffix == ".parquet":
        return "hf"
    if place.endswith((".tar", ".tar.gz", ".tgz")):
        return "wds"
    if not path.exists():
        raise UsageError(f"the data {place} does not exist; give --data a folder, parquet or WebDataset shards")
    if any(path.glob("*.tar")):
        return "wds"
    markers = ("dataset_dict.json", "dataset_info.json", "state.json")
    if any((path / marker).is_file() for marker in markers) or any(
        next(path.glob(pattern), None) for pattern in ("*.parquet", "*/*.parquet", "*.arrow")
    ):
        return "hf"
    return "folder"
