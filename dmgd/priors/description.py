"""What a prior's files say of it besides its weights."""

import json
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from dmgd.classes.info import ClassInfo
from dmgd.config import check_settings, setting
from dmgd.errors import ArtifactError, UsageError
from dmgd.priors.class_table import class_table, labelled
from dmgd.specs import EMBEDDED, PriorType

Numerics = Literal["original", "diffusers"]
EMBEDDED_STATISTICS = "stats.safetensors"  # beside an embedded prior, and no weights


@dataclass(frozen=True)
class Description:
    """What a prior's weights do not contain: `dmgd.json` in its folder, or `NAME.dmgd.json` beside its file.

    `classes` are the rows of the label table in order: names, or {"name", "wnid"} objects; an object of them by row
    is read, too. None: those of an `id2label`, else ImageNet's if there are 1,000 rows, else numbers. `vae` is a Hub id
    or a folder, relative to the description's. `prior_type`: see `PriorSpec`.
    """

    id: str | None = None
    prior_type: PriorType | None = None
    numerics: Numerics | None = None
    guidance_scale: float | None = setting(None, at_least=0)
    guided_channels: int | None = setting(None, at_least=1)
    num_heads: int | None = setting(None, at_least=1)
    vae: str | None = None
    classes: tuple[ClassInfo, ...] | None = None

    def __post_init__(self) -> None:
        check_settings(self)


def is_cached(hub_id: str, file: str | None = None) -> bool:
    """Whether weights of this model on the Hub are in its client's cache; those in `file`, if one is named."""
    from huggingface_hub import constants

    snapshots = Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}" / "snapshots"
    return any(is_weights(found) for found in snapshots.rglob(file or "*"))


def is_weights(file: Path) -> bool:
    return file.suffix in (".safetensors", ".bin", ".pt", ".pth") and file.name != EMBEDDED_STATISTICS


def local_path(name: str) -> Path | None:
    """The local path of the prior `name`, embedded or the user's own; None if it is not local."""
    if name in EMBEDDED:
        return Path(str(files("dmgd.priors") / name))
    path = Path(name).expanduser()
    return path if path.exists() else None


def description_path(path: Path) -> Path:
    """The path of the description of a prior at `path`, which need not exist."""
    return path / "dmgd.json" if path.is_dir() else path.with_suffix(".dmgd.json")


def read_description(path: Path, default: Description = Description()) -> Description:
    """The prior's own description, or the default, with the classes of its `id2label` if it lists none itself, and an
    autoencoder beside it by its path. Raises ArtifactError for one with unknown fields or values."""
    file, found = description_path(path), default
    if file.exists():
        content = read_config(file)
        known = {field.name for field in fields(Description)}
        if unknown := sorted(set(content) - known):
            raise ArtifactError(f"{file} has unknown fields {', '.join(unknown)} (known: {', '.join(sorted(known))})")
        try:
            if content.get("classes") is not None:
                content["classes"] = class_table(content["classes"])
            found = Description(**content)
        except UsageError as error:
            raise ArtifactError(f"{file}: {error}") from error
    if found.vae and (beside := file.parent / found.vae).is_dir():
        found = replace(found, vae=str(beside))
    return found if found.classes else replace(found, classes=_labelled(path))


def _labelled(path: Path) -> tuple[ClassInfo, ...] | None:
    """The classes of the `id2label` of a pipeline or of its network; None if there is none."""
    for file in (path / "model_index.json", path / "transformer" / "config.json", path / "config.json"):
        listed = read_config(file).get("id2label") if file.exists() else None
        if listed is not None:
            try:
                return labelled(listed)
            except UsageError as error:
                own = description_path(path)
                raise ArtifactError(f"{file}: id2label: {error}; list the classes in {own} instead") from error
    return None


def read_config(path: Path, finite: bool = True) -> dict[str, Any]:
    """The JSON object at `path`, of finite numbers unless told otherwise. Raises ArtifactError if the file is missing
    or holds something else."""
    if not path.exists():
        raise ArtifactError(f"{path} is missing; expected a folder as diffusers saves it")
    if not path.is_file():  # a pipe or a device would be read without end
        raise ArtifactError(f"{path} is not a file")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors of Windows write a mark first
        json.dumps(content, allow_nan=not finite, ensure_ascii=False).encode()  # as it is recorded
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path} is not a JSON object of settings")
    return content
