"""`dmgd export`"""

from pathlib import Path
from typing import Annotated

import typer

from dmgd_cli import options
from dmgd_cli.output import print_json
from dmgd_cli.progress import Display


def command(
    run: options.Run,
    out: options.OutFolder,
    format: Annotated[
        str, typer.Option("--format", "-f", help="webdataset, parquet, imagefolder or tensors (for DD-Ranking).")
    ] = "webdataset",
    image_format: Annotated[str, typer.Option(help="png (the run's bytes), webp (lossless) or jpg.")] = "png",
    shard_images: Annotated[int, typer.Option(help="Most images in a shard.", min=1)] = 10_000,
    shard_mb: Annotated[int, typer.Option(help="Most megabytes of images in a shard.", min=1)] = 500,
    soft_labels: Annotated[
        Path | None,
        typer.Option(help="Teacher's folder with soft_labels.safetensors, to go with the images.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Write a run as a dataset that other tools open: images, labels, metadata, card.

    \b
    Examples:
      dmgd export runs/digits --format webdataset --out digits-wds
      dmgd export runs/digits --format parquet --out digits-hf
    """
    from dmgd.artifacts.run import RunDirectory
    from dmgd.export import export
    from dmgd.exporters.example import Limits

    index = export(
        RunDirectory.open(run),
        format,
        out,
        image_format=image_format,
        limits=Limits(shard_images, shard_mb * 1_000_000),
        teacher=soft_labels,
        progress=Display(),
    )
    if json:
        print_json({"path": str(out), **index})
    else:
        typer.echo(f"exported {index['images']} images of {len(index['images_per_class'])} classes to {out}")
