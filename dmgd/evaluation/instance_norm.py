"""Instance norm whose gradient is fast on a CPU in the layout in which convolutions and pooling are."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Images = Float[Tensor, "b c h w"]


class InstanceNorm(nn.GroupNorm):
    """Affine normalisation of every channel of every image: group norm with a group per channel."""

    def __init__(self, channels: int):
        super().__init__(channels, channels)

    def forward(self, x: Images) -> Images:
        if x.is_cuda or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        return _ChannelsLast.apply(x, self.weight, self.bias, self.eps)


class _ChannelsLast(torch.autograd.Function):
    """Torch's group norm of images in memory as (b, h, w, c); its own gradient takes several times as long there."""

    @staticmethod
    def forward(ctx: Any, x: Images, weight: Float[Tensor, " c"], bias: Float[Tensor, " c"], eps: float) -> Images:
        b, c, h, w = x.shape
        y, mean, inverse_std = torch.native_group_norm(x, weight, bias, b, c, h * w, c, eps)
        ctx.save_for_backward(x, weight, mean, inverse_std)
        return y

    @staticmethod
    def backward(ctx: Any, *outer: Images) -> tuple[Images, Float[Tensor, " c"], Float[Tensor, " c"], None]:
        """For x̂ = (x − mean) / std and y = weight x̂ + bias: dx = weight / std (dy − mean(dy) − x̂ mean(dy x̂))."""
        x, weight, mean, inverse_std = ctx.saved_tensors
        b, c, h, w = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(b, h * w, c)
        dy = outer[0].permute(0, 2, 3, 1).reshape(b, h * w, c)
        ones = x.new_ones(b, 1, h * w)  # a product with ones is a faster sum
        sums = torch.bmm(ones, dy)[:, 0]
        sums_normal = (torch.bmm(ones, dy * pixels)[:, 0] - mean * sums) * inverse_std
        # dx is linear in dy and x, with coefficients of each channel of each image.
        of_dy = weight * inverse_std
        of_x = -of_dy * inverse_std * sums_normal / (h * w)
        constant = -of_dy * sums / (h * w) - of_x * mean
        dx = torch.addcmul(constant[:, None], of_dy[:, None], dy).addcmul_(of_x[:, None], pixels)
        return dx.view(b, h, w, c).permute(0, 3, 1, 2), sums_normal.sum(0), sums.sum(0), None
