"""`stats.safetensors`: the support points of every class, and what they were computed from."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, Float64, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError
from dmgd.files import canonical_json, misfit, open_regular, sha256_bytes, written_whole
from dmgd.priors.codec import PixelCodec
from dmgd.sources.detail import LEAST_DETAIL, detail
from dmgd.specs import unlabelled

FORMAT = 5
TENSORS = ("support", "mass", "covariance", "features", "count")
_WEIGHTS = {"id": str, "digest": str}
_QUALITY = {"w2": [int | float], "w2_of_one_point": [int | float]}
HEADER = {  # what is read of it, see `misfit`
    "classes": [{"name": str, "wnid": str | None, "prior_index": int | None}],
    "source": {"name": str, "variant": str | None, "fingerprint": str},
    "prior": _WEIGHTS,
    "encoder": {**_WEIGHTS, "approximate": bool, "pixels": bool, "config": dict},
    "quality": _QUALITY,
    "bad_images": {"count": int},
    "image_size": int,
    "detail": int | float | None,
    "k": int,
    "seed": int,
    "mirror": bool,
}


@dataclass(frozen=True)
class Statistics:
    """Per class the `support` points in latent space, their `mass` (sums to 1; 0 for points that a small class lacks),
    the `covariance` of its latents along them (see `covariance_along`), their mean `features` (see `mean_features`)
    and the number of images `count`; the class table; and the `header`: source, prior, settings and versions."""

    support: Float32[Tensor, "c k d"]
    mass: Float32[Tensor, "c k"]
    covariance: Float64[Tensor, "c k k"]
    features: Float32[Tensor, "c r f"]
    count: Int64[Tensor, " c"]
    classes: tuple[ClassInfo, ...]
    header: dict[str, Any]

    def __repr__(self) -> str:
        count, k, size = self.support.shape
        source, images = self.header["source"]["name"], int(self.count.sum())
        return f"Statistics({source}, {images} images of {count} classes, {k} support points in {size} dimensions each)"

    @cached_property
    def within(self) -> float:
        """The RMS distance between two images of a class, estimated from the support points."""
        centre = (self.mass[:, :, None] * self.support).sum(1, keepdim=True)
        squared = (self.support - centre).square().sum(2)
        return float((2 * (self.mass * squared).sum(1).mean()).sqrt())

    @cached_property
    def norm(self) -> Float32[Tensor, " c"]:
        """The RMS norm of the latents of each class: that of the support points plus the quantization error."""
        squared = (self.mass * self.support.square().sum(2)).sum(1)
        return (squared + torch.tensor(self.header["quality"]["w2"]).to(squared)).sqrt()

    @cached_property
    def residual(self) -> float:
        """The RMS deviation per coordinate of a latent from its nearest support point: √(W₂² / d)."""
        return float((sum(self.header["quality"]["w2"]) / len(self.classes) / self.support.shape[2]) ** 0.5)

    @property
    def of_pixels(self) -> bool:
        """Whether the latents are pixels, grey or RGB, rather than an autoencoder's."""
        return self.header["encoder"]["pixels"]

    @cached_property
    def blurs(self) -> bool:
        """Whether the mean of some images of a class is a blur: always in an autoencoder's latents, and in pixels where
        support points have less than LEAST_DETAIL of the detail of the source's images."""
        if not self.of_pixels:
            return True
        if not (of_source := self.header.get("detail")):
            return False
        side = self.header["image_size"]
        points = self.support.reshape(*self.mass.shape, -1, side, side).flatten(0, 1)
        of_points = detail(PixelCodec(points.shape[1], points.device).decode(points).cpu().numpy())
        return float((self.mass.flatten().cpu().numpy() * of_points).sum()) < LEAST_DETAIL * of_source * len(self.mass)

    @cached_property
    def between(self) -> float:
        """The RMS distance between the means of two classes."""
        centres = (self.mass[:, :, None] * self.support).sum(1)
        squared = (centres - centres.mean(0)).square().sum(1)
        return float((2 * squared.mean()).sqrt())

    def quality(self) -> list[dict[str, Any]]:
        """Per class the numbers of images and of support points, W₂² with the mean as the only point and with these
        points, and their ratio: the fraction of the class's variance that the points do not explain."""
        measured = self.header["quality"]
        return [
            {
                "class": info.name,
                "images": int(count),
                "points": int((mass > 0).sum()),
                "w2_of_one_point": one,
                "w2": w2,
                "ratio": round(w2 / one, 3) if one else 0.0,
            }
            for info, count, mass, one, w2 in zip(
                self.classes, self.count, self.mass, measured["w2_of_one_point"], measured["w2"], strict=True
            )
        ]

    def of_classes(self, classes: slice, device: torch.device) -> "Statistics":
        """The statistics of some classes, on a device, except for float64 tensors, which not all devices support."""
        quality = {name: values[classes] for name, values in self.header.get("quality", {}).items()}
        return Statistics(
            support=self.support[classes].to(device),
            mass=self.mass[classes].to(device),
            covariance=self.covariance[classes],
            features=self.features[classes].to(device),
            count=self.count[classes],
            classes=self.classes[classes],
            header={**self.header, "quality": quality},
        )

    @property
    def digest(self) -> str:
        """The SHA-256 of the header, without the labels of the weights, and of the tensors; a run records it."""
        weights: dict[str, Any] = {
            kind: unlabelled(self.header[kind]) for kind in ("prior", "encoder") if kind in self.header
        }
        return _sha256({**self.header, **weights}, self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in TENSORS}

    def save(self, path: Path | str) -> None:
        """Write the file atomically; equal statistics give equal bytes."""
        header = {**self.header, "format": FORMAT, "classes": [info.to_json() for info in self.classes]}
        tensors = self.tensors()
        header["sha256"] = _sha256(header, (tensors[name] for name in sorted(tensors)))
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with written_whole(Path(path)) as temporary:
            try:
                save_file(whole, temporary, {"dmgd": canonical_json(header)})
            except SafetensorError as error:  # a full disk, for example
                raise OSError(f"it cannot be written: {error}") from error

    @classmethod
    def load(cls, path: Path | str) -> "Statistics":
        """The statistics in the file. Raises ArtifactError if it is missing, damaged, holds something else, or has
        another format."""
        if not Path(path).exists():
            raise ArtifactError(f"the statistics {path} do not exist; make them with dmgd fit-stats")
        try:
            open_regular(Path(path)).close()
            with safe_open(path, "pt") as file:
                header = json.loads((file.metadata() or {})["dmgd"])
                same_format = isinstance(header, dict) and header.get("format") == FORMAT
                tensors = {name: file.get_tensor(name) for name in TENSORS} if same_format else {}
            if same_format:
                checksum, ordered = header.pop("sha256", None), (tensors[name] for name in sorted(tensors))
                problem = misfit(header, HEADER) or _misfit_of_tensors(header, tensors)
                if problem or checksum != _sha256(header, ordered):
                    raise ValueError(problem or "its checksum differs")
        except (SafetensorError, KeyError, ValueError, RecursionError, OSError) as error:
            raise ArtifactError(
                f"{path} is damaged or is no statistics file ({error}); run dmgd fit-stats again"
            ) from error
        if not same_format:
            raise ArtifactError(f"{path} was written by another version of dmgd; run dmgd fit-stats again")
        del header["format"]
        classes = tuple(ClassInfo.from_json(fields) for fields in header.pop("classes"))
        return cls(**tensors, classes=classes, header=header)


def _misfit_of_tensors(header: dict[str, Any], tensors: dict[str, Tensor]) -> str | None:
    """Which tensor does not fit the header or is no statistics', in a few words; None if all do."""
    c, k, d = len(header["classes"]), header["k"], tensors["support"].shape[-1:].numel()
    features = (c, *tensors["features"].shape[1:])
    shapes = {"support": (c, k, d), "mass": (c, k), "covariance": (c, k, k), "features": features, "count": (c,)}
    types = {"covariance": torch.float64, "count": torch.int64}
    for name, shape in shapes.items():
        tensor, dtype = tensors[name], types.get(name, torch.float32)
        if (tensor.dtype, tensor.shape) != (dtype, shape):
            return f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}, not {dtype} of {shape}"
        if not tensor.isfinite().all():
            return f"{name} is not finite"
    mass = tensors["mass"]
    if len(features) != 3 or not all(features):
        return f"features are of shape {features}, not of a class, a network and a feature"
    if not all(shapes["support"]) or (mass < 0).any() or not torch.allclose(mass.sum(1), torch.ones(c), atol=1e-3):
        return "the masses of a class do not sum to 1"
    if (tensors["count"] < 1).any() or any(len(header["quality"][name]) != c for name in _QUALITY):
        return "count or quality are not of the classes"
    return None


def _sha256(header: dict[str, Any], tensors: Iterable[Tensor]) -> str:
    """The SHA-256 of the header and the tensors, in their order."""
    return sha256_bytes(canonical_json(header).encode() + b"".join(tensor.numpy().tobytes() for tensor in tensors))
