"""Specs: everything that identifies data and weights, so that any process can open them. Standard library only."""

import re
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

from dmgd.errors import UsageError, unknown_choice

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PriorType = Literal["dit", "sit", "repa"]
DIGITS, CIFAR10 = "digits", "cifar10"
EMBEDDED = (DIGITS, CIFAR10)  # sources that have a prior of their name in the package
EMBEDDED_POINTS = {CIFAR10: 20}  # support points per class of the statistics beside it, where there are any
IMAGENET_PRIOR = "dit-xl-2-256"
NO_VAE = "none"  # a prior's autoencoder that is left out
ELSEWHERE = "PATH"  # replaces local folders in published specs

Spec = TypeVar("Spec", bound="_Spec")


@dataclass(frozen=True)
class _Spec(ABC):
    """The common base of specs."""

    name: str
    choices: ClassVar[tuple[str, ...]] = ()  # the fields that name nothing, and hold for whatever is named

    @classmethod
    def of(cls: type[Spec], named: "Spec | Path | str", **options: Any) -> Spec:
        """The spec, made from a name or path or given, with the options that are not None. Raises UsageError for
        anything else."""
        spec = cls(str(named)) if isinstance(named, Path | str) else named
        if not isinstance(spec, cls):
            raise UsageError(f"{named!r} is neither a name nor a path nor a {cls.__name__}")
        return spec.with_options(**options)

    def with_options(self: Spec, **options: Any) -> Spec:
        """The spec with the options that are not None. Another name or data path resets all other fields, as they may
        not apply to it."""
        given = {name: value for name, value in options.items() if value is not None}
        kept = {name: getattr(self, name) for name in self.choices}
        is_another = given.get("name", self.name) != self.name or "data" in given
        return type(self)(**{"name": self.name, **kept, **given}) if is_another else replace(self, **given)

    def located(self: Spec) -> Spec:
        """The spec with absolute local paths, so that it can be opened from any working directory.

        Raises UsageError for a published path, of which only the last part is known.
        """
        return self._with_paths(_absolute)

    def published(self: Spec) -> Spec:
        """The spec for publication: only the last part of local paths, and URLs without credentials."""
        return self._with_paths(lambda kind, path: published_place(path))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def _with_paths(self: Spec, change: Any) -> Spec:
        found = {name: _kind_and_path(getattr(self, name) or "") for name in self._path_fields()}
        return replace(self, **{name: kind + change(kind, path) for name, (kind, path) in found.items() if path})

    @abstractmethod
    def _path_fields(self) -> tuple[str, ...]:
        """The fields that may hold local paths."""


def is_url(text: str) -> bool:
    """Whether the text is the URL of data elsewhere, such as "s3://bucket/data"."""
    return re.match(r"[a-z][a-z0-9+.-]*://", text) is not None


def url_of(path: Path | str) -> str | None:
    """The URL that was given where a path is expected; None for a path. A Path has lost one of its slashes."""
    match = re.match(r"([a-z][a-z0-9+.-]+):/+", str(path))
    return f"{match[1]}://{str(path)[match.end() :]}" if match else None


def require_no_url(out: Path) -> None:
    """Raise UsageError if `out`, where files are written, is a URL."""
    if url := url_of(out):
        raise UsageError(
            f"{shown_url(url)} is a URL, but what is written there needs the locks and renames of a file system; give "
            "a local or shared folder, and copy the result, as with `aws s3 sync`"
        )


def has_credentials(url: str) -> bool:
    """Whether the URL has a password in it, or what may be one. Azure's abfs://CONTAINER@ACCOUNT has none."""
    return re.match(r"https?://[^/]*@|[^/]*://[^/]*:[^/]*@", url) is not None


def shown_url(url: str) -> str:
    """The URL without credentials: without a user's name and password and, if it is an HTTP address, without the query,
    which may be a signature."""
    url = re.sub(r"(?<=://)[^/]*@", "", url) if has_credentials(url) else url
    return url.partition("?")[0] if url.startswith("http") else url


def _kind_and_path(text: str) -> tuple[str, str]:
    """ "folder:PATH" as ("folder:", "PATH"), whatever the kind; "" for the kind where there is none."""
    if is_url(text):
        return "", text
    kind, colon, rest = text.partition(":")
    return (kind + colon, rest) if kind.isidentifier() and rest and not Path(text).exists() else ("", text)


def published_place(path: str) -> str:
    """A path or URL for publication, see `_Spec.published`."""
    if is_url(path):
        return shown_url(path)
    return f"{ELSEWHERE}/{Path(path).name}" if path.startswith("/") else path


def _absolute(kind: str, text: str) -> str:
    text = text.removeprefix("file://")
    if is_url(text) or text.startswith("pipe:"):
        return text
    path = Path(text).expanduser()
    if text.startswith(f"{ELSEWHERE}/") and not path.exists():
        raise UsageError(
            f"{kind}{text} is a path on the machine that the set was made on; give its path on this one with --source "
            "or --data for images, --prior, --vae or --lora for weights, and --prompts"
        )
    is_pattern = kind == "wds:" or text.endswith((".tar", ".tar.gz", ".tgz"))
    return str(path.absolute()) if is_pattern or path.exists() else text


@dataclass(frozen=True)
class SourceSpec(_Spec):
    """Everything that identifies a source's data; see `dmgd.sources.open.open_source`."""

    data: str | None = None
    test_data: str | None = None
    variant: str | None = None
    columns: str | None = None
    class_map: str | None = None

    def _path_fields(self) -> tuple[str, ...]:
        return ("name", "data", "test_data", "class_map") if ":" in self.name else ("data", "test_data", "class_map")


@dataclass(frozen=True)
class PriorSpec(_Spec):
    """Everything that identifies a prior's weights, and the network's precision; see `dmgd.priors.load.load_prior`,
    which settles the precision "auto" by the device. `prior_type` says what a DiT-shaped network was trained as, where
    its files do not: dit, sit or repa.

    Of text-to-image priors only: the `prompt` of every class, with {name} in it; `prompts`, a JSON or CSV file of those
    of single classes; `negative_prompt`; `size`, the side of the images in pixels; `lora`, a folder.
    """

    of_text: ClassVar[tuple[str, ...]] = ("prompt", "prompts", "negative_prompt", "size", "lora")
    choices: ClassVar[tuple[str, ...]] = ("precision", "prior_type", *of_text)

    vae: str | None = None
    encoder: str | None = None
    precision: str = "auto"
    revision: str | None = None
    prior_type: str | None = None
    prompt: str | None = None
    prompts: str | None = None
    negative_prompt: str | None = None
    size: int | None = None
    lora: str | None = None

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise unknown_choice("precision", self.precision, get_args(Precision))
        if self.prior_type not in (None, *get_args(PriorType)):
            raise unknown_choice("prior type", str(self.prior_type), get_args(PriorType))

    def _path_fields(self) -> tuple[str, ...]:
        paths = ("vae", "encoder", "prompts", "lora")
        return paths if self.name in EMBEDDED else ("name", *paths)


def unlabelled(identity: dict[str, Any]) -> dict[str, Any]:
    """The recorded identity of weights without their id: that is a label, often the name of a folder, while the digest
    says which they are."""
    return {key: value for key, value in identity.items() if key != "id"}


def embedded_points(source: SourceSpec, prior: PriorSpec) -> int:
    """The number of support points per class of the statistics that the package has of the source, as the prior sees
    it; 0 if it has none, or if the source is a copy or a selection of the user's own, or the prior another."""
    embedded = source == SourceSpec(source.name) and prior.name == source.name and not prior.encoder
    return EMBEDDED_POINTS.get(source.name, 0) if embedded else 0


def default_prior(source: str) -> str:
    """The name of the default prior for a source."""
    return source if source in EMBEDDED else IMAGENET_PRIOR
