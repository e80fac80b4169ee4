"""`dmgd export`"""

from typing import Annotated

import typer

from dmgd_cli import options
from dmgd_cli.output import print_json
from dmgd_cli.progress import Display


def command(
    run: options.Run,
    out: options.OutFolder,
    format: Annotated[str, typer.Option("--format", "-f", help="webdataset, parquet or imagefolder.")] = "webdataset",
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

    index = export(RunDirectory.open(run), format, out, progress=Display())
    if json:
        print_json({"path": str(out), **index})
    else:
        typer.echo(f"exported {index['images']} images of {len(index['images_per_class'])} classes to {out}")
