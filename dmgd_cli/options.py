"""The options that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated

import typer


def _sources() -> list[str]:
    from dmgd.sources.open import NAMED

    return [*NAMED, "folder:", "hf:", "wds:"]


def _priors() -> list[str]:
    from dmgd.priors.description import prior_names

    return list(prior_names())


def formats() -> list[str]:
    from dmgd.exporters.formats import LAYOUTS

    return list(LAYOUTS)


Source = Annotated[
    str,
    typer.Option(
        autocompletion=_sources,
        help="Dataset: digits, imagenette, imagewoof, imagenet-100, imagenet-1k, imagenet-a … e, imagenet-idc, "
        "folder:PATH, hf:ID_OR_PATH or wds:PATTERN.",
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Local copy of a named dataset: image folder, parquet or WebDataset shards. Default: the Hub's.",
        show_default=False,
    ),
]
TestData = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="The test split, where the data brings none.", show_default=False),
]
Variant = Annotated[
    str | None,
    typer.Option(help="The Hub's configuration, such as full_size, 320px or 160px.", show_default=False),
]
Columns = Annotated[
    str | None,
    typer.Option(metavar="IMAGE,LABEL", help="Columns of a Hugging Face dataset. Default: found.", show_default=False),
]
ClassMap = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="JSON or CSV from the data's labels to WordNet ids or class names.", show_default=False
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        help="Approximate encoder for the statistics: taesd, or an autoencoder's folder or Hub id. "
        "Default: the prior's own.",
        show_default=False,
    ),
]
Prior = Annotated[
    str | None,
    typer.Option(
        autocompletion=_priors,
        help="Diffusion model: digits, dit-xl-2-256, dit-xl-2-512, a Hub id, a diffusers DiT folder or a checkpoint "
        "in DiT's original format. Default: the source's own.",
        show_default=False,
    ),
]
PriorRevision = Annotated[
    str | None, typer.Option(help="Commit or branch of a prior of the Hub's. Default: main.", show_default=False)
]
Precision = Annotated[str, typer.Option(help="The network's: fp32, bf16 or fp16.")]
RunSource = Annotated[
    str | None, typer.Option(autocompletion=_sources, help="Dataset. Default: the run's own.", show_default=False)
]
RunPrior = Annotated[
    str | None,
    typer.Option(autocompletion=_priors, help="Diffusion model. Default: the run's own.", show_default=False),
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
