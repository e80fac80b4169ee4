"""The diffusion transformer DiT (Peebles & Xie 2023), for inference and training.

One network for original and diffusers weights (see `checkpoints.py`). Unlike diffusers' module it takes the label
*embedding*, which semantic matching changes, and computes the conditioning vector once per call, not once per block.
"""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dmgd.config import check_settings, setting
from dmgd.errors import DmgdError, UsageError

FREQUENCIES = 256


def _size(most: int) -> Any:
    """A size without default, bounded far above those of any DiT, so that nothing absurd is built."""
    return field(metadata={"at_least": 1, "at_most": most})


@dataclass(frozen=True)
class DiTConfig:
    """The shape of a DiT, and two numbers that differ between implementations. Raises UsageError for an impossible one.

    `frequency_divisor`: the timestep frequencies are 10⁴^(−i/divisor): 128 in facebookresearch/DiT, 127 in diffusers.
    `norm_eps` is that of the norm before the MLP: 1e-6 in facebookresearch/DiT, 1e-5 by default in diffusers.
    `num_embedders` is 1, or one per block in models that were trained in diffusers. `qk_norm`: queries and keys pass a
    layer norm of each head's width, as in timm's `Attention(qk_norm=True)`, which REPA can be trained with.
    """

    sample_size: int = _size(512)
    patch_size: int = _size(512)
    in_channels: int = _size(1024)
    out_channels: int = _size(2048)
    width: int = _size(2**14)
    depth: int = _size(1000)
    num_heads: int = _size(2**14)
    num_classes: int = _size(10**6)
    num_embedders: int = setting(1, at_least=1)
    frequency_divisor: int = 128
    norm_eps: float = setting(1e-6, above=0)
    qk_norm: bool = False

    def __post_init__(self) -> None:
        check_settings(self)
        if self.out_channels not in (self.in_channels, 2 * self.in_channels):
            raise UsageError(f"a DiT of {self.in_channels} channels has as many outputs, or twice as many with a "
                             f"learned variance, not {self.out_channels}")  # fmt: skip
        for whole, part in (("sample_size", "patch_size"), ("width", "num_heads")):
            if getattr(self, whole) % getattr(self, part):
                raise UsageError(f"{whole} {getattr(self, whole)} is not a multiple of {part} {getattr(self, part)}")


class Embedder(nn.Module):
    """The timestep network and the label table; row `num_classes` of the table is the null class."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        table = torch.empty(num_classes + 1, width)
        if not table.is_meta:  # there, normal_() imports torch._dynamo, which takes more than a second
            table.normal_()
        self.label = nn.Embedding.from_pretrained(table, freeze=False)


class Attention(nn.Module):
    """Multi-head self-attention over the patches."""

    def __init__(self, width: int, num_heads: int, qk_norm: bool):
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = (nn.LayerNorm(width // num_heads) if qk_norm else nn.Identity() for _ in "qk")

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A transformer block with adaptive layer norm (adaLN-Zero)."""

    def __init__(self, width: int, num_heads: int, norm_eps: float, qk_norm: bool):
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.attention = Attention(width, num_heads, qk_norm)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.norm_eps = norm_eps

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition)[:, None].chunk(6, dim=-1)
        x = torch.addcmul(x, gate_a, self.attention(_modulated(x, shift_a, scale_a, 1e-6)))
        return torch.addcmul(x, gate_m, self.mlp(_modulated(x, shift_m, scale_m, self.norm_eps)))


class DiT(nn.Module):
    """Latents, a timestep and label embeddings → the prediction, followed by further channels (a learned variance)."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch_size
        self.embedders = nn.ModuleList(Embedder(width, config.num_classes) for _ in range(config.num_embedders))
        self.patch = nn.Conv2d(config.in_channels, width, patch, stride=patch)
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads, config.norm_eps, config.qk_norm) for _ in range(config.depth)
        )
        self.final_modulation = nn.Linear(width, 2 * width)
        self.final = nn.Linear(width, patch * patch * config.out_channels)
        positions = position_embedding(config.sample_size // patch, width)
        self.position: Tensor
        self.register_buffer("position", positions, persistent=False)

    def label_embedding(self, classes: Tensor) -> Float[Tensor, "b g e"]:
        """The embeddings of class indices (b,), one from each label table, float32."""
        return torch.stack([embedder.label(classes) for embedder in self.embedders], dim=1).float()  # type: ignore[operator]

    def forward(
        self, z: Float[Tensor, "b c h w"], t: int | float | Float[Tensor, "b 1"], label: Float[Tensor, "b g e"]
    ) -> Float[Tensor, "b o h w"]:
        """`t` is the timestep of all images, or that of each."""
        return self.trunk(z, self.conditions(t, label))

    def conditions(
        self, t: int | float | Float[Tensor, "b 1"], label: Float[Tensor, "b g e"]
    ) -> Float[Tensor, "b g e"]:
        """The conditioning vector of each embedder: one shared by all blocks, or one per block."""
        dtype = self.patch.weight.dtype
        # In float32 whatever the network's precision, in which the angles of late timesteps would be noise.
        exponent = torch.arange(FREQUENCIES // 2, device=label.device) / self.config.frequency_divisor
        angle = t * torch.exp(-math.log(10_000) * exponent)
        wave = torch.cat([angle.cos(), angle.sin()], dim=-1).to(dtype)
        time = torch.stack([embedder.time(wave) for embedder in self.embedders], dim=-2)  # type: ignore[operator]
        return F.silu(time + label.to(dtype))

    def trunk(self, z: Float[Tensor, "b c h w"], conditions: Float[Tensor, "b g e"]) -> Float[Tensor, "b o h w"]:
        """The transformer itself, given the conditioning vectors: nearly all of the computation."""
        dtype = self.patch.weight.dtype
        x = self.patch(z.to(dtype)).flatten(2).transpose(1, 2) + self.position.to(dtype)
        condition = conditions.unbind(1)
        for i, block in enumerate(self.blocks):
            x = block(x, condition[i % len(condition)])
        shift, scale = self.final_modulation(condition[0])[:, None].chunk(2, dim=-1)
        return self._unpatched(self.final(_modulated(x, shift, scale, 1e-6)))

    def compiled(self) -> "DiT":
        """This network with its trunk compiled, on the first call with each batch size; on a GPU as a CUDA graph.

        The timestep stays outside: a number that changes with every call would trigger recompilation. Compiled code is
        cached between processes, in `TORCHINDUCTOR_CACHE_DIR`. A call raises DmgdError if torch cannot compile.
        """
        from torch._dynamo.exc import TorchDynamoException  # slow to import

        on_gpu = self.position.is_cuda
        fast = torch.compile(self.trunk, dynamic=False, mode="reduce-overhead" if on_gpu else None)

        def trunk(z: Tensor, conditions: Tensor) -> Tensor:
            try:
                output = fast(z, conditions)
            except TorchDynamoException as error:
                reason = str(error).splitlines()[0][:150]
                raise DmgdError(f"the network cannot be compiled here ({reason}); leave --compile out") from error
            return output.clone() if on_gpu else output  # the next call overwrites the graph's memory

        twin = copy.copy(self)  # the weights are shared
        twin.trunk = trunk  # type: ignore[method-assign]
        return twin

    def _unpatched(self, x: Float[Tensor, "b n p"]) -> Float[Tensor, "b o h w"]:
        side, patch = self.config.sample_size // self.config.patch_size, self.config.patch_size
        x = x.unflatten(2, (patch, patch, self.config.out_channels)).unflatten(1, (side, side))
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=eps), 1 + scale)


def position_embedding(side: int, width: int) -> Float[Tensor, "1 n e"]:
    """The fixed sine–cosine embedding of a `side` × `side` grid, the column in the first half of the features.

    Source: `get_2d_sincos_pos_embed` of facebookresearch/DiT (`models.py`); computed in float64.
    """
    # On the CPU even while a network is built without memory for its weights, which are loaded later.
    omega = 10_000 ** (-torch.arange(width // 4, dtype=torch.float64, device="cpu") / (width / 4))
    wave = torch.arange(side, dtype=torch.float64, device="cpu")[:, None] * omega
    along = torch.cat([wave.sin(), wave.cos()], dim=1)
    columns, rows = along.expand(side, -1, -1), along[:, None].expand(-1, side, -1)
    return torch.cat([columns, rows], dim=-1).reshape(1, side * side, width).float()
