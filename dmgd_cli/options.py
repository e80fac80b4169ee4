"""The options that several commands share, each declared once, and the registered names."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand

from dmgd.exporters.formats import LAYOUTS
from dmgd.matching.methods import METHODS
from dmgd.priors.known import prior_names
from dmgd.sources.layouts import KINDS, prefixes
from dmgd.specs import PriorType as Types

# What stands for the registered names in help texts.
NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "{sources}": prefixes,
    "{priors}": prior_names,
    "{methods}": lambda: METHODS,
    "{formats}": lambda: LAYOUTS,
}


def named_sources() -> list[str]:
    from dmgd.sources.open import NAMED  # loads Pillow

    return [*NAMED, *(f"{kind}:" for kind in KINDS)]


class Command(TyperCommand):
    """A command in whose help the keys of NAMES are replaced by the registered names."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        for parameter in self.params:
            for key, names in NAMES.items():
                if key in (text := getattr(parameter, "help", None) or ""):
                    *first, last = names()
                    parameter.help = text.replace(key, f"{', '.join(first)} or {last}")  # type: ignore[attr-defined]


def optional(help: str, panel: str | None = None, *names: str, **more: Any) -> Any:
    """An option without a fixed default; its help says what the default is."""
    return typer.Option(*names, help=help, show_default=False, rich_help_panel=panel, **more)


DATA, MODEL, OUTPUT = "Data", "Model", "Output"

Source = Annotated[
    str,
    optional(
        "Dataset: digits, cifar10, imagenette, imagewoof, imagenet-100, imagenet-1k, imagenet-a … e, imagenet-idc, "
        "{sources}.",
        DATA,
        autocompletion=named_sources,
    ),
]
Data = Annotated[
    str | None,
    optional(
        "Local copy of a named dataset: image folder, parquet or WebDataset shards. Default: downloaded.",
        DATA,
        metavar="PATH",
    ),
]
TestData = Annotated[str | None, optional("The test split, if the data has none.", DATA, metavar="PATH")]
Variant = Annotated[str | None, optional("The Hub's configuration, such as full_size, 320px or 160px.", DATA)]
Columns = Annotated[
    str | None, optional("Columns of a Hugging Face dataset. Default: detected.", DATA, metavar="IMAGE,LABEL")
]
ClassMap = Annotated[
    str | None,
    optional("JSON or CSV that maps the data's labels to WordNet ids or class names.", DATA, metavar="FILE"),
]
Encoder = Annotated[
    str | None,
    optional(
        "Approximate encoder for the statistics: taesd, an autoencoder's folder or Hub id. Default: the prior's own.",
        MODEL,
    ),
]
Prior = Annotated[
    str | None,
    optional(
        "Diffusion model: {priors}, a Hub id, a folder of diffusers or a checkpoint of DiT, SiT or REPA. "
        "Default: digits or cifar10 for the dataset of that name, else dit-xl-2-256.",
        MODEL,
        autocompletion=prior_names,
    ),
]
PROMPTS = "Prompts (text-to-image priors)"
Prompt = Annotated[
    str | None,
    optional("Prompt of every class, with {name} in it. Default: a photo of a {name}.", PROMPTS, metavar="TEXT"),
]
Prompts = Annotated[
    str | None,
    optional("JSON or CSV of prompts for single classes: name or WordNet id, prompt.", PROMPTS, metavar="FILE"),
]
NegativePrompt = Annotated[str | None, optional("What images shall not show.", PROMPTS, metavar="TEXT")]
Size = Annotated[int | None, optional("Side of the images in pixels. Default: the prior's own.", PROMPTS)]
Lora = Annotated[
    str | None, optional("LoRA to fuse into the weights, as diffusers saves it.", PROMPTS, metavar="FOLDER")
]
RunPrompts = Annotated[str | None, optional("The file of prompts. Default: the run's.", PROMPTS, metavar="FILE")]
RunLora = Annotated[str | None, optional("The folder of the LoRA. Default: the run's.", PROMPTS, metavar="FOLDER")]
PriorType = Annotated[
    str | None,
    optional(
        "What a checkpoint with DiT's tensors was trained as, if its files do not say: dit, sit or repa.",
        MODEL,
        autocompletion=lambda: get_args(Types),
    ),
]
PriorRevision = Annotated[str | None, optional("Commit or branch of a prior on the Hub. Default: main.", MODEL)]
Precision = Annotated[
    str,
    typer.Option(
        help="Precision of the network: fp32, bf16 or fp16; auto is bf16 on a GPU that has it.", rich_help_panel=MODEL
    ),
]
RunSource = Annotated[str | None, optional("Dataset. Default: the run's.", DATA, autocompletion=named_sources)]
RunPrior = Annotated[str | None, optional("Diffusion model. Default: the run's.", MODEL, autocompletion=prior_names)]
Vae = Annotated[str | None, optional("Autoencoder (folder or Hub id), if the prior has none or to replace it.", MODEL)]
Seed = Annotated[int, typer.Option(help="The same command and seed give the same bytes.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=OUTPUT)]
Device = Annotated[
    str, typer.Option(help="cpu, cuda or cuda:N; auto is the GPU if there is one.", rich_help_panel=MODEL)
]
CLUSTER = "Several devices"
Ray = Annotated[
    str | None,
    optional(
        "Let workers do it, on a Ray cluster: local (this machine's devices), auto (the cluster that it belongs to) or "
        "HOST:PORT.",
        CLUSTER,
        metavar="ADDRESS",
    ),
]
Workers = Annotated[int | None, optional("Workers of --ray. Default: as many as fit.", CLUSTER, min=1)]
GpusPerWorker = Annotated[float | None, optional("GPUs of each worker, such as 1 or 0.5. Default: 1.", CLUSTER)]
Run = Annotated[Path, typer.Argument(help="A run of dmgd distill.", show_default=False)]
