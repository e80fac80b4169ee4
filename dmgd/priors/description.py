"""What is known of a prior without its weights: names, description, classes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dmgd.classes.imagenet import imagenet_classes
from dmgd.classes.info import ClassInfo
from dmgd.classes.matching import match_prior
from dmgd.config import check_settings, setting
from dmgd.errors import ArtifactError, UsageError
from dmgd.network import Arrival
from dmgd.specs import EMBEDDED, PriorSpec

Numerics = Literal["original", "diffusers"]


@dataclass(frozen=True)
class Description:
    """What a prior's weights do not contain: `dmgd.json` in its folder, or `NAME.dmgd.json` beside its file.

    `classes` are the rows of the label table in order: names, or {"name", "wnid"} objects; an object of them by row
    is read, too. None: ImageNet's classes if there are 1,000 rows, else numbers. `vae` is a folder or Hub id.
    """

    id: str | None = None
    numerics: Numerics | None = None
    guidance_scale: float = setting(4.0, at_least=0)
    guided_channels: int | None = setting(None, at_least=1)
    num_heads: int | None = setting(None, at_least=1)
    vae: str | None = None
    classes: tuple[ClassInfo, ...] | None = None

    def __post_init__(self) -> None:
        check_settings(self)


PUBLISHED = {"dit-xl-2-256": "facebook/DiT-XL-2-256", "dit-xl-2-512": "facebook/DiT-XL-2-512"}
PUBLISHED_SIZE, PUBLISHED_LICENCE = "3.3 GB", "CC BY-NC 4.0"  # of both, as their pages on the Hub list them


class Family(NamedTuple):
    """A family of priors other than DiT, named `NAME` or `NAME:REST`: a function that loads one from its spec onto a
    device, and one that returns its class table, or None if it is unknown without the weights."""

    load: Callable[[PriorSpec, Any], Any]
    classes: Callable[[PriorSpec], Sequence[ClassInfo] | None] = lambda spec: None


FAMILIES: dict[str, Family] = {}
"""The registry of families; `load_prior`, `--help` and the list of known priors read it."""


def family_of(name: str) -> Family | None:
    """The family that a prior's name belongs to, or None for a DiT."""
    return FAMILIES.get(name.partition(":")[0])


def prior_names() -> tuple[str, ...]:
    """The names of known priors, besides Hub ids, folders and checkpoints."""
    return (EMBEDDED, *PUBLISHED, *FAMILIES)


def published_prior(name: str) -> tuple[str, Description] | None:
    """The Hub id and the description of a published prior, by its short name or its Hub id; None for others."""
    for short, hub_id in PUBLISHED.items():
        if name in (short, hub_id):
            return hub_id, Description(id=short, numerics="original", guided_channels=3)
    return None


def prior_arrival(spec: PriorSpec) -> Arrival:
    """Where a prior's weights come from, known without loading them."""
    from huggingface_hub import constants

    if path := local_path(spec.name):
        found = [file for file in ([path] if path.is_file() else path.rglob("*")) if is_weights(file)]
        where = "embedded; Apache-2.0" if spec.name == EMBEDDED else "local"
        return Arrival(spec.name, f"{sum(file.stat().st_size for file in found) / 1e6:.1f} MB, {where}")
    known = published_prior(spec.name)
    hub_id = known[0] if known else spec.name
    size, licence = (f"{PUBLISHED_SIZE} ", f"; {PUBLISHED_LICENCE}") if known else ("", "")
    if family_of(spec.name) or hub_id.count("/") != 1 or hub_id.startswith((".", "~")):
        return Arrival(spec.name, "")
    if is_cached(hub_id):
        return Arrival(spec.name, f"in the cache{licence}")
    remedy = f"give --prior PATH, a local copy of {spec.name}"
    return Arrival(spec.name, f"{size}from the Hub ({hub_id}){licence}", (constants.ENDPOINT,), remedy)


def is_cached(hub_id: str) -> bool:
    """Whether weights of this model on the Hub are in its client's cache."""
    from huggingface_hub import constants

    snapshots = Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}" / "snapshots"
    return any(is_weights(file) for file in snapshots.rglob("*"))


def is_weights(file: Path) -> bool:
    return file.suffix in (".safetensors", ".bin", ".pt", ".pth")


def local_path(name: str) -> Path | None:
    """The local path of the prior `name`, embedded or the user's own; None if it is not local."""
    if name == EMBEDDED:
        return Path(str(files("dmgd.priors") / EMBEDDED))
    path = Path(name).expanduser()
    return path if path.exists() else None


def check_classes(spec: PriorSpec, classes: Sequence[ClassInfo], *, source: str = "SOURCE") -> None:
    """Raise MismatchError if the prior lacks one of the source's classes, if its class table is known without its
    weights: before they are downloaded."""
    if family := family_of(spec.name):
        table = family.classes(spec)
    elif path := local_path(spec.name):
        table = read_description(path).classes
    else:
        table = imagenet_classes() if published_prior(spec.name) else None
    if table:
        match_prior(spec.name, table, classes, source=source)


def description_path(path: Path) -> Path:
    """The path of the description of a prior at `path`, which need not exist."""
    return path / "dmgd.json" if path.is_dir() else path.with_suffix(".dmgd.json")


def read_description(path: Path, default: Description = Description()) -> Description:
    """The prior's own description, or the default. Raises ArtifactError for one with unknown fields or values."""
    file = description_path(path)
    if not file.exists():
        return default
    content = read_config(file)
    known = {field.name for field in fields(Description)}
    if unknown := sorted(set(content) - known):
        raise ArtifactError(f"{file} has unknown fields {', '.join(unknown)} (known: {', '.join(sorted(known))})")
    try:
        if content.get("classes") is not None:
            content["classes"] = _class_table(content["classes"])
        return Description(**content)
    except UsageError as error:
        raise ArtifactError(f"{file}: {error}") from error


def _class_table(listed: Any) -> tuple[ClassInfo, ...]:
    """The classes of a description, row by row. Raises UsageError for anything else, and for a class listed twice."""
    if isinstance(listed, dict):
        if lacking := [row for row in range(len(listed)) if str(row) not in listed]:
            raise UsageError(f"classes by row must be numbered from 0 without gaps; row {lacking[0]} is not there")
        listed = [listed[str(row)] for row in range(len(listed))]
    if not isinstance(listed, list):
        raise UsageError(f"classes must be a list of names, or an object of them by row, not {listed!r}")
    seen: dict[str, ClassInfo] = {}
    for row, one in enumerate(listed):
        fields = {"name": one} if isinstance(one, str) else dict(one) if isinstance(one, dict) else {}
        own_row = fields.pop("prior_index", None) in (None, row)
        name, wnid = fields.pop("name", None), fields.pop("wnid", None)
        if fields or not own_row or not (isinstance(name, str) and name and isinstance(wnid, str | None)):
            raise UsageError(f'classes must be names, or objects of "name" and "wnid"; row {row} is {one!r}')
        if (info := ClassInfo(name, wnid)).identity in seen:
            raise UsageError(f"classes has {info.identity!r} twice; every row needs a name of its own")
        seen[info.identity] = info
    return tuple(seen.values())


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object at `path`. Raises ArtifactError if the file is missing or holds something else."""
    if not path.is_file():  # nor a pipe or a device, which would be read without end
        raise ArtifactError(
            f"{path} is {'not a file' if path.exists() else 'missing'}; expected a diffusers DiT folder"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, allow_nan=False, ensure_ascii=False).encode()  # as it is recorded
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path} is not a JSON object of settings")
    return content
