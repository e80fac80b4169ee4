"""`dmgd export`"""

from pathlib import Path
from typing import Annotated

import typer

from dmgd.display import Display
from dmgd.errors import UsageError
from dmgd.exporters.formats import LAYOUTS
from dmgd_cli import options
from dmgd_cli.options import optional
from dmgd_cli.output import print_json, print_line


def command(
    run: options.Run,
    format: Annotated[
        str | None,
        optional(
            "{formats}. DD-Ranking reads tensors. Default: webdataset, or parquet with --push-to-hub.",
            None,
            "--format",
            "-f",
            autocompletion=lambda: LAYOUTS,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        optional(
            "New or empty folder to write to, or a URL such as s3://bucket/name. Default: beside the run, RUN-FORMAT.",
            options.OUTPUT,
            "--out",
            "-o",
        ),
    ] = None,
    image_format: Annotated[str, typer.Option(help="png (the run's bytes), webp (lossless) or jpg.")] = "png",
    tiles: Annotated[
        int,
        typer.Option(help="Mosaics: TILES×TILES images of a class in one, at 1/TILES of their side.", min=1),
    ] = 1,
    shard_images: Annotated[int, typer.Option(help="Maximum images per shard.", min=1)] = 10_000,
    shard_mb: Annotated[int, typer.Option(help="Maximum megabytes of images per shard.", min=1)] = 500,
    labels: Annotated[
        Path | None,
        optional(
            "Folder of dmgd relabel, or with soft_labels.safetensors, to include.", None, "--labels", "--soft-labels"
        ),
    ] = None,
    evaluation: Annotated[
        Path | None, optional("JSON of dmgd evaluate, to show its scores in the dataset card.")
    ] = None,
    push_to_hub: Annotated[
        str | None, typer.Option(help="Also upload it to the Hugging Face Hub as this dataset.", metavar="USER/NAME")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Create the dataset as private.")] = False,
    revision: Annotated[str | None, optional("Branch to push to. Default: main.")] = None,
    commit_message: Annotated[str, typer.Option(help="Commit message of the push.")] = "Upload distilled dataset",
    json: options.Json = False,
) -> None:
    """Export a run as a dataset that other tools can load: images, labels, metadata, card.

    \b
    Examples:
      dmgd export runs/digits
      dmgd export runs/digits --push-to-hub me/digits
      dmgd export runs/digits --format imagefolder --out digits-images
    """
    from dmgd.exporters.example import Limits
    from dmgd.exporters.hub import check_push, publish
    from dmgd.specs import shown_url, url_of
    from dmgd.workflows.export import export

    at = shown_url(url_of(out) or "") if out else ""
    if push_to_hub and at:
        raise UsageError("--push-to-hub sends what is in a local folder; leave --out out, or export twice")
    if push_to_hub:
        check_push(push_to_hub)
    elif private or revision:
        raise UsageError("--private and --revision need --push-to-hub user/name")
    format = format or ("parquet" if push_to_hub else "webdataset")
    named = run if run.name not in ("", "..") else run.resolve()
    out = out or named.with_name(f"{named.name}-{format}{f'-tiles{tiles}' if tiles > 1 else ''}")
    display = Display()
    index = export(
        run,
        format,
        out,
        image_format=image_format,
        limits=Limits(shard_images, shard_mb * 1_000_000),
        labels=labels,
        evaluation=evaluation,
        tiles=tiles,
        progress=display,
    )
    url = None
    if push_to_hub:
        url = publish(out, push_to_hub, private=private, revision=revision, message=commit_message, progress=display)
    if json:
        print_json({"path": at or str(out), "url": url, **index})
    else:
        images = f"{index['images']} mosaics of {tiles}×{tiles}" if tiles > 1 else str(index["images"])
        print_line(f"exported {images} images of {len(index['images_per_class'])} classes to {at or out}")
        if url:
            print_line(url)
