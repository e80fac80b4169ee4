"""`dmgd distill`"""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from dmgd.display import Display
from dmgd.generation.config import DistillConfig
from dmgd.matching.methods import DEFAULT_METHOD, METHODS, method_named
from dmgd.matching.selections import Selection
from dmgd.specs import PriorSpec, SourceSpec, default_prior, require_no_url
from dmgd_cli import options
from dmgd_cli.announce import announce, opened_if_here
from dmgd_cli.engine import engine_of
from dmgd_cli.options import optional
from dmgd_cli.output import print_json, print_line

DEFAULTS = DistillConfig()


def command(
    source: options.Source,
    ipc: Annotated[int, typer.Option(help="Images per class.")] = DEFAULTS.ipc,
    method: Annotated[
        str, typer.Option(autocompletion=lambda: METHODS, help="{methods}; see their settings below.")
    ] = DEFAULT_METHOD,
    data: options.Data = None,
    variant: options.Variant = None,
    columns: options.Columns = None,
    class_map: options.ClassMap = None,
    prior: options.Prior = None,
    prior_type: options.PriorType = None,
    prior_revision: options.PriorRevision = None,
    vae: options.Vae = None,
    encoder: options.Encoder = None,
    prompt: options.Prompt = None,
    prompts: options.Prompts = None,
    negative_prompt: options.NegativePrompt = None,
    size: options.Size = None,
    lora: options.Lora = None,
    stats: Annotated[
        Path | None,
        optional("Statistics of dmgd fit-stats. Default: those of the package, as of cifar10, or fitted and cached."),
    ] = None,
    seed: options.Seed = DEFAULTS.seed,
    batch_size: Annotated[int | None, optional("Images per network call. Default: by device and memory.")] = None,
    precision: options.Precision = "auto",
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network, which takes a minute; for GPUs.")
    ] = False,
    device: options.Device = "auto",
    ray: options.Ray = None,
    workers: options.Workers = None,
    gpus_per_worker: options.GpusPerWorker = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only continue the run in --out; do not start a new one.")
    ] = False,
    out: Annotated[
        Path | None,
        optional(
            "Folder of the run; one that was interrupted is continued. Default: runs/SOURCE-ipcN-METHOD-seedN.",
            options.OUTPUT,
            "--out",
            "-o",
        ),
    ] = None,
    json: options.Json = False,
    **settings: Any,
) -> None:
    """Distil a dataset into a few synthetic images per class.

    \b
    Examples:
      dmgd distill --source imagenette --ipc 10
      dmgd distill --source cifar10 --ipc 10
      dmgd distill --source digits --ipc 1 --method dmgd-paper --rho 5
      dmgd distill --source folder:photos --prior sd15 --prompt "a {name}"
    """
    config = DistillConfig(ipc, seed, method_named(method, **settings), batch_size, compile)
    source_spec = SourceSpec(source, data, None, variant, columns, class_map)
    prior_spec = PriorSpec(
        prior or default_prior(source), vae, encoder, precision, prior_revision, prior_type
    ).with_options(prompt=prompt, prompts=prompts, negative_prompt=negative_prompt, size=size, lora=lora)

    out = out or Path(config.run_folder(source))
    display = Display()
    with engine_of(device, ray, workers, gpus_per_worker) as engine:
        # Before torch is imported and anything is downloaded, so that wrong paths and classes are reported at once.
        require_no_url(out)
        opened = opened_if_here(source_spec, prior_spec)
        announce(opened, prior_spec, config, stats, device, out, display)

        from dmgd.workflows.distill import distill

        run = distill(
            opened, prior_spec, config, out=out, statistics=stats, resume=resume, device=engine, progress=display
        )

    images = len(run.records())
    if json:
        print_json({"path": str(out), "images": images, **run.manifest})
    else:
        made = "chose {} real images" if isinstance(config.method, Selection) else "distilled {} images"
        print_line(f"{made.format(images)} of {len(run.classes)} classes into {out}")
        path = shlex.quote(str(out))
        print_line(f"next: dmgd evaluate {path}   or   dmgd export {path}")
