"""Students of other families than ConvNet and ResNet, built from transformers' configurations with new weights.

At 224 pixels and for 1,000 classes they have the parameters that were published. They keep their own normalisation
(batch or layer norm), whatever the protocol's. Dropout and stochastic depth are off: a training's randomness is that of
its seed alone.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from dmgd.errors import UsageError


class Student(nn.Module):
    """A classifier of transformers that returns logits."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        return self.network(x).logits


def make_student(name: str, *, num_classes: int, channels: int, size: int) -> Student:
    """The network `name`, one of STUDENTS, for images (channels, size, size). UsageError without transformers."""
    try:
        import transformers
    except ImportError as error:
        raise UsageError(f"the network {name} needs transformers; pip install 'dmgd[text]'") from error
    return Student(STUDENTS[name](transformers, size, {"num_labels": num_classes, "num_channels": channels}))


def _mobilenet_v2(transformers: Any, size: int, shape: dict[str, int]) -> nn.Module:
    config = transformers.MobileNetV2Config(**shape, image_size=size, classifier_dropout_prob=0.0)
    return transformers.MobileNetV2ForImageClassification(config)


def _efficientnet_b0(transformers: Any, size: int, shape: dict[str, int]) -> nn.Module:
    config = transformers.EfficientNetConfig(
        **shape, image_size=size, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280,
        dropout_rate=0.0, drop_connect_rate=0.0,
    )  # fmt: skip
    return transformers.EfficientNetForImageClassification(config)


def _vit_tiny(transformers: Any, size: int, shape: dict[str, int]) -> nn.Module:
    """ViT-Ti (Touvron et al. 2021): 12 layers of width 192; patches of 16 pixels, of small images an eighth of them."""
    patch = 2 ** max(0, min(4, (size // 8).bit_length() - 1))
    config = transformers.ViTConfig(
        **shape, image_size=size, patch_size=patch, hidden_size=192, num_hidden_layers=12, num_attention_heads=3,
        intermediate_size=768,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def _swin_tiny(transformers: Any, size: int, shape: dict[str, int]) -> nn.Module:
    """Swin-T (Liu et al. 2021): patches of 4 pixels and windows of 7 × 7, smaller where images are."""
    patch = max(1, size // 56)
    window = min(7, size // patch // 8)  # the last stage is an eighth of the first
    config = transformers.SwinConfig(**shape, image_size=size, patch_size=patch, window_size=window, drop_path_rate=0.0)
    return transformers.SwinForImageClassification(config)


STUDENTS: dict[str, Callable[[Any, int, dict[str, int]], nn.Module]] = {
    "mobilenet-v2": _mobilenet_v2,
    "efficientnet-b0": _efficientnet_b0,
    "vit-tiny": _vit_tiny,
    "swin-tiny": _swin_tiny,
}
SMALLEST = {"mobilenet-v2": 64, "efficientnet-b0": 64, "vit-tiny": 8, "swin-tiny": 16}
"""The smallest image side in pixels: convolutions of stride 32 leave at least 2 × 2 features."""
