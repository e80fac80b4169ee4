"""`dmgd train-prior`"""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from dmgd.display import Display
from dmgd.network import require_arrivals
from dmgd.priors.recipe import TrainingConfig
from dmgd.specs import SourceSpec
from dmgd_cli import options
from dmgd_cli.engine import engine_of
from dmgd_cli.options import optional
from dmgd_cli.output import print_json, print_line

DEFAULTS = TrainingConfig()


def command(
    source: options.Source,
    out: Annotated[
        Path, optional("Folder of the prior; a training that was interrupted is continued.", None, "--out", "-o")
    ],
    data: options.Data = None,
    variant: options.Variant = None,
    columns: options.Columns = None,
    class_map: options.ClassMap = None,
    minutes: Annotated[float | None, optional("Minutes of training. Default: 20, without --steps.")] = None,
    steps: Annotated[int | None, optional("Steps of training; the same command then gives the same prior.")] = None,
    size: Annotated[
        int | None, optional("Image side in pixels. Default: the data's, at most 32, or 256 with --vae.")
    ] = None,
    vae: Annotated[
        str | None,
        optional("Autoencoder (folder or Hub id) whose latents are learned, above 32 pixels.", options.MODEL),
    ] = None,
    flip: Annotated[
        bool | None,
        optional(
            "Learn mirror images, too. Default: if the data's images cannot be told from them.",
            None,
            "--flip/--no-flip",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the training.", min=0)] = DEFAULTS.seed,
    device: options.Device = "auto",
    ray: options.Ray = None,
    workers: options.Workers = None,
    gpus_per_worker: options.GpusPerWorker = None,
    json: options.Json = False,
) -> None:
    """Train a small diffusion model on a dataset, as a prior for it.

    \b
    Examples:
      dmgd train-prior --source folder:photos --out my-prior
      dmgd train-prior --source digits --minutes 5 --out my-digits
    """
    config = TrainingConfig(minutes, steps, size, vae, flip, seed)
    spec = SourceSpec(source, data, None, variant, columns, class_map)

    with engine_of(device, ray, workers, gpus_per_worker) as engine:
        from dmgd.sources.open import source_arrival
        from dmgd.workflows.train_prior import train_prior

        require_arrivals(source_arrival(spec))
        record = train_prior(spec, config, out=out, device=engine, progress=Display())

    if json:
        print_json({"path": str(out), **record})
    else:
        result = record["result"]
        held = "" if result["held_out_loss"] is None else f", held-out {result['held_out_loss']:.4f}"
        print_line(
            f"trained {out} in {result['steps']:,} steps: loss {result['loss']:.4f}{held}; see {out}/samples.png"
        )
        print_line(f"next: {shlex.join(['dmgd', 'distill', '--source', source, '--prior', str(out)])}")
