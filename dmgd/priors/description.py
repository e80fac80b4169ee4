"""What is known of a prior without its weights: its names, its own description, its classes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dmgd.classes.imagenet import imagenet_classes
from dmgd.classes.info import ClassInfo
from dmgd.classes.matching import match_prior
from dmgd.errors import ArtifactError
from dmgd.specs import EMBEDDED, PriorSpec

Numerics = Literal["original", "diffusers"]


@dataclass(frozen=True)
class Description:
    """What a prior's weights do not say. A prior may bring its own as `dmgd.json` (folder) or `NAME.dmgd.json` (file).

    `classes` are the rows of the label table in order: names, or {"name", "wnid"} objects; without them they are the
    ImageNet classes if there are 1,000, else only numbered. `vae` is a folder or Hub id.
    """

    id: str | None = None
    numerics: Numerics | None = None
    guidance_scale: float = 4.0
    guided_channels: int | None = None
    num_heads: int | None = None
    vae: str | None = None
    classes: list[Any] | None = None

    @property
    def listed_classes(self) -> tuple[ClassInfo, ...] | None:
        """The rows of the label table as far as the description lists them."""
        if self.classes is None:
            return None
        return tuple(ClassInfo(entry) if isinstance(entry, str) else ClassInfo(**entry) for entry in self.classes)


_FACEBOOK = {"numerics": "original", "guidance_scale": 4.0, "guided_channels": 3}
PUBLISHED = {
    "dit-xl-2-256": ("facebook/DiT-XL-2-256", Description(id="dit-xl-2-256", **_FACEBOOK)),  # type: ignore[arg-type]
    "dit-xl-2-512": ("facebook/DiT-XL-2-512", Description(id="dit-xl-2-512", **_FACEBOOK)),  # type: ignore[arg-type]
}


class Family(NamedTuple):
    """Priors of another kind than DiT, named `NAME` or `NAME:REST`: what loads one from its spec onto a device, and the
    rows of its class table as far as they are known without its weights."""

    load: Callable[[PriorSpec, Any], Any]
    classes: Callable[[PriorSpec], Sequence[ClassInfo] | None] = lambda spec: None


FAMILIES: dict[str, Family] = {}
"""The registry of families; `load_prior`, `--help` and the list of known priors read it."""


def family_of(name: str) -> Family | None:
    """The family that a prior's name belongs to, or None for a DiT."""
    return FAMILIES.get(name.partition(":")[0])


def prior_names() -> tuple[str, ...]:
    """The names that a prior can be called by, beside Hub ids, folders and checkpoints."""
    return (EMBEDDED, *PUBLISHED, *FAMILIES)


def published_prior(name: str) -> tuple[str, Description] | None:
    """The Hub id and the description of a prior that the tool knows, by either of its names."""
    return next((known for short, known in PUBLISHED.items() if name in (short, known[0])), None)


def local_path(name: str) -> Path | None:
    """Where the prior `name` lies on this machine: in the package, or at a path of its own; None for the Hub's."""
    if name == EMBEDDED:
        return Path(str(files("dmgd.priors") / EMBEDDED))
    path = Path(name).expanduser()
    return path if path.exists() else None


def check_classes(spec: PriorSpec, classes: Sequence[ClassInfo]) -> None:
    """Raise MismatchError if a prior lacks one of a source's classes, as far as that can be said without its weights:
    before they are fetched."""
    path = local_path(spec.name)
    table: Sequence[ClassInfo] | None
    if family := family_of(spec.name):
        table = family.classes(spec)
    elif path is not None:
        described = read_description(path)
        table = described.listed_classes if described else None
    else:
        table = imagenet_classes() if published_prior(spec.name) else None
    if table:
        match_prior(spec.name, table, classes)


def description_path(path: Path) -> Path:
    """Where a prior at `path` may describe itself: `dmgd.json` in a folder, `NAME.dmgd.json` beside a file."""
    return path / "dmgd.json" if path.is_dir() else path.with_suffix(".dmgd.json")


def read_description(path: Path) -> Description | None:
    """The prior's own description, or None. Raises ArtifactError for one with unknown fields."""
    place = description_path(path)
    if not place.is_file():
        return None
    content = read_config(place)
    known = {field.name for field in fields(Description)}
    if unknown := sorted(set(content) - known):
        raise ArtifactError(f"{place} has unknown fields {', '.join(unknown)} (known: {', '.join(sorted(known))})")
    return Description(**{**content, "guidance_scale": float(content.get("guidance_scale", 4.0))})


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises ArtifactError if it is missing or is not one."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; expected a diffusers DiT folder") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON: {error}") from error
