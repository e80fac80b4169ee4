"""The small classifiers used in dataset distillation: ConvNet-D, ResNetAP and ResNet, with instance or batch norm.

Sources: ConvNet of Zhao et al. 2021 (dataset condensation); ResNetAP of Kim et al. 2022 (IDC), a ResNet whose strides
are average pooling; ResNet of He et al. 2016 with torchvision's parameter names, so that its checkpoints load.
"""

import math
import re

from jaxtyping import Float
from torch import Tensor, nn

from dmgd.errors import UsageError
from dmgd.evaluation.library_networks import SMALLEST, STUDENTS, make_student

NETWORKS = ("convnet-D", "convnet-D-wW", "resnetap-10", "resnet-18", "resnet-50", "resnet-101", *STUDENTS)

_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_BOTTLENECK_FROM = 50


def make_network(name: str, *, num_classes: int, channels: int, size: int, norm: str) -> nn.Module:
    """The network `name` for images (channels, size, size), its initial weights drawn from torch's generator.

    Names: "convnet-3" is three blocks of width 128, "convnet-3-w32" of width 32; "resnetap-10", "resnet-18",
    "resnet-50", "resnet-101"; or one of STUDENTS. `norm` is "instance" or "batch". Raises UsageError for another
    name, or a ConvNet too deep for `size`.
    """
    if name in STUDENTS:
        return make_student(name, num_classes=num_classes, channels=channels, size=size)
    family, depth, width = parsed(name)
    if family == "convnet":
        return convnet(depth, width, num_classes, channels, size, norm)
    return ResNet(depth, num_classes, channels, size, norm, pooled=family == "resnetap")


def parsed(name: str) -> tuple[str, int, int]:
    """Family, depth and width of the network `name`. Raises UsageError for an unknown one."""
    found = re.fullmatch(r"(convnet|resnetap|resnet)-([1-9]\d*)(?:-w([1-9]\d*))?", name)
    if found and (found[1] == "convnet" or (int(found[2]) in _BLOCKS and not found[3])):
        return found[1], int(found[2]), int(found[3] or 128)
    raise UsageError(f"unknown network {name!r} (known: {', '.join(NETWORKS)}, with D blocks and width W)")


def normalisation(norm: str, channels: int) -> nn.Module:
    """An affine normalisation layer. Instance norm is written as group norm with a group per channel."""
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(channels, channels)


def convnet(depth: int, width: int, num_classes: int, channels: int, size: int, norm: str) -> nn.Sequential:
    """`depth` blocks of convolution, norm, ReLU and 2×2 average pooling, then a linear layer."""
    if size >> depth < 1:
        raise UsageError(f"a ConvNet of {depth} blocks needs images of at least {2**depth} pixels, not {size}")
    layers: list[nn.Module] = []
    for block in range(depth):
        inputs = channels if block == 0 else width
        layers += [nn.Conv2d(inputs, width, 3, padding=1), normalisation(norm, width), nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * (size >> depth) ** 2, num_classes))


class Block(nn.Module):
    """A residual block: two 3×3 convolutions, or for deep networks 1×1, 3×3, 1×1 with four times as many outputs.

    With `pooled` the stride is average pooling after the 3×3 convolution's activation and in the shortcut.
    """

    def __init__(self, inputs: int, planes: int, stride: int, norm: str, *, pooled: bool, bottleneck: bool):
        super().__init__()
        conv_stride, outputs = 1 if pooled else stride, planes * (4 if bottleneck else 1)
        pool = nn.AvgPool2d(stride) if pooled and stride > 1 else nn.Identity()
        if bottleneck:
            self.conv1, self.bn1 = _conv(inputs, planes, 1), normalisation(norm, planes)
            self.conv2, self.bn2 = _conv(planes, planes, 3, conv_stride), normalisation(norm, planes)
            self.conv3, self.bn3 = _conv(planes, outputs, 1), normalisation(norm, outputs)
        else:
            self.conv1, self.bn1 = _conv(inputs, planes, 3, conv_stride), normalisation(norm, planes)
            self.conv2, self.bn2 = _conv(planes, planes, 3), normalisation(norm, planes)
        self.bottleneck, self.pool, self.relu = bottleneck, pool, nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            shortcut = _conv(inputs, outputs, 1, conv_stride), normalisation(norm, outputs)
            self.downsample = nn.Sequential(shortcut[0], pool, shortcut[1]) if pooled else nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        if self.bottleneck:
            out = self.bn3(self.conv3(self.pool(self.relu(self.bn2(self.conv2(out))))))
        else:
            out = self.bn2(self.conv2(self.pool(out)))
        return self.relu(out + self.downsample(x))


class ResNet(nn.Module):
    """A ResNet (`pooled` False) or ResNetAP (True) with a stem that fits the image size.

    Above 128 pixels the stem is a 7×7 convolution: with stride 2 and max pooling (ResNet), or with 4×4 average pooling
    (ResNetAP). Up to 128 it is 3×3 and 2×2 pooling, up to 64 a 3×3 convolution alone.
    """

    def __init__(self, depth: int, num_classes: int, channels: int, size: int, norm: str, *, pooled: bool):
        super().__init__()
        if size > 128:
            kernel, stride = 7, 1 if pooled else 2
            self.maxpool: nn.Module = nn.AvgPool2d(4) if pooled else nn.MaxPool2d(3, 2, 1)
        else:
            kernel, stride = 3, 1
            self.maxpool = nn.AvgPool2d(2) if size > 64 else nn.Identity()
        self.conv1, self.bn1, self.relu = _conv(channels, 64, kernel, stride), normalisation(norm, 64), nn.ReLU()
        bottleneck, inputs = depth >= _BOTTLENECK_FROM, 64
        for i, count in enumerate(_BLOCKS[depth]):
            planes, blocks = 64 * 2**i, []
            for j in range(count):
                step = 2 if i > 0 and j == 0 else 1
                blocks.append(Block(inputs, planes, step, norm, pooled=pooled, bottleneck=bottleneck))
                inputs = planes * (4 if bottleneck else 1)
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, num_classes)
        self.apply(_initialise)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[operator]
        return self.fc(x.mean((2, 3)))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _initialise(module: nn.Module) -> None:
    """Initialise convolutions from a normal distribution of variance 2 / fan-out (He et al. 2015)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0, math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels)))


def smallest_size(name: str) -> int:
    """The smallest image size, in pixels, at which every normalised feature map has more than one pixel."""
    if name in STUDENTS:
        return SMALLEST[name]
    family, depth, _ = parsed(name)
    return 2**depth if family == "convnet" else 16


def parameter_count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
