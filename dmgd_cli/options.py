"""The options that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[str, typer.Option(help="Dataset to distil: digits.", show_default=False)]
Prior = Annotated[
    str | None,
    typer.Option(
        help="Diffusion model: digits, dit-xl-2-256, dit-xl-2-512, a Hub id, a diffusers DiT folder or a checkpoint "
        "in DiT's original format. Default: the source's own.",
        show_default=False,
    ),
]
Vae = Annotated[
    str | None,
    typer.Option(
        help="Autoencoder folder or Hub id, where the prior brings none or another is wanted.", show_default=False
    ),
]
Seed = Annotated[int, typer.Option(help="Same command, same seed: same bytes.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N; auto takes the GPU if there is one.")]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="New or empty folder to write to.", show_default=False)]
Run = Annotated[Path, typer.Argument(help="A run, as dmgd distill writes it.", show_default=False)]


def torch_device(name: str) -> str:
    """The device that `--device` means. Raises UsageError for one that this machine lacks."""
    import torch

    from dmgd.errors import UsageError

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"the device {name!r} cannot be used ({str(error).splitlines()[0]}); try --device cpu"
        ) from error
    return name
