"""The options that several commands share, each declared once, and the registered names."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand


def sources() -> list[str]:
    from dmgd.sources.layouts import prefixes

    return prefixes()


def named_sources() -> list[str]:
    from dmgd.sources.open import NAMED

    return [*NAMED, *(f"{prefix.partition(':')[0]}:" for prefix in sources())]


def priors() -> list[str]:
    from dmgd.priors.description import prior_names

    return list(prior_names())


def methods() -> list[str]:
    from dmgd.matching.methods import METHODS

    return list(METHODS)


def formats() -> list[str]:
    from dmgd.exporters.formats import LAYOUTS

    return list(LAYOUTS)


class Command(TyperCommand):
    """A command in whose help {sources}, {priors}, {methods} and {formats} are replaced by the registered names."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        for parameter in self.params:
            for names in (sources, priors, methods, formats):
                field, text = f"{{{names.__name__}}}", getattr(parameter, "help", None) or ""
                if field in text:
                    *first, last = names()
                    parameter.help = text.replace(field, f"{', '.join(first)} or {last}")  # type: ignore[attr-defined]


def optional(help: str, *names: str, panel: str | None = None, **more: Any) -> Any:
    """An option without a fixed default; its help says what the default is."""
    return typer.Option(*names, help=help, show_default=False, rich_help_panel=panel, **more)


DATA, MODEL, SAMPLING, OUTPUT = "Data", "Model", "Sampling", "Output"


Source = Annotated[
    str,
    optional(
        "Dataset: digits, imagenette, imagewoof, imagenet-100, imagenet-1k, imagenet-a … e, imagenet-idc, {sources}.",
        autocompletion=named_sources,
        panel=DATA,
    ),
]
Data = Annotated[
    str | None,
    optional(
        "Local copy of a named dataset: image folder, parquet or WebDataset shards. Default: downloaded.",
        metavar="PATH",
        panel=DATA,
    ),
]
TestData = Annotated[str | None, optional("The test split, if the data has none.", metavar="PATH", panel=DATA)]
Variant = Annotated[str | None, optional("The Hub's configuration, such as full_size, 320px or 160px.", panel=DATA)]
Columns = Annotated[
    str | None, optional("Columns of a Hugging Face dataset. Default: detected.", metavar="IMAGE,LABEL", panel=DATA)
]
ClassMap = Annotated[
    str | None,
    optional("JSON or CSV that maps the data's labels to WordNet ids or class names.", metavar="FILE", panel=DATA),
]
Encoder = Annotated[
    str | None,
    optional(
        "Approximate encoder for the statistics: taesd, an autoencoder's folder or Hub id. Default: the prior's own.",
        panel=MODEL,
    ),
]
Prior = Annotated[
    str | None,
    optional(
        "Diffusion model: {priors}, a Hub id, a diffusers DiT folder or a checkpoint in DiT's original format. "
        "Default: digits for digits, else dit-xl-2-256.",
        autocompletion=priors,
        panel=MODEL,
    ),
]
PriorRevision = Annotated[str | None, optional("Commit or branch of a prior on the Hub. Default: main.", panel=MODEL)]
Precision = Annotated[
    str,
    typer.Option(
        help="Precision of the network: fp32, bf16 or fp16; auto is bf16 on a GPU that has it.", rich_help_panel=MODEL
    ),
]
RunSource = Annotated[str | None, optional("Dataset. Default: the run's.", autocompletion=named_sources, panel=DATA)]
RunPrior = Annotated[str | None, optional("Diffusion model. Default: the run's.", autocompletion=priors, panel=MODEL)]
Vae = Annotated[
    str | None, optional("Autoencoder (folder or Hub id), if the prior has none or to replace it.", panel=MODEL)
]
Seed = Annotated[int, typer.Option(help="The same command and seed give the same bytes.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=OUTPUT)]
Device = Annotated[
    str, typer.Option(help="cpu, cuda or cuda:N; auto is the GPU if there is one.", rich_help_panel=MODEL)
]
Run = Annotated[Path, typer.Argument(help="A run of dmgd distill.", show_default=False)]
