"""`dmgd relabel`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from dmgd.display import Display
from dmgd.evaluation.label_config import RelabelConfig
from dmgd.evaluation.protocols import PROTOCOLS
from dmgd_cli import options
from dmgd_cli.options import optional
from dmgd_cli.output import print_json, print_line

DEFAULTS = RelabelConfig()


def command(
    run: Annotated[Path, typer.Argument(help="A run of dmgd distill, or an export of one.", show_default=False)],
    teacher: Annotated[
        str, optional("Folder of dmgd train-teacher, checkpoint or Hub id, or efficientnet-lite0.", options.MODEL)
    ],
    out: Annotated[Path, optional("New or empty folder of the labels.", None, "--out", "-o")],
    views: Annotated[
        int, typer.Option(help="Label so many augmented views of each image. 0: the image itself.", min=0)
    ] = DEFAULTS.views,
    tiles: Annotated[
        int | None,
        optional("Label the parts of mosaics, as export --tiles has them. Default: as RUN is stored.", min=1),
    ] = None,
    top_k: Annotated[int | None, optional("Keep the K largest logits. Default: all.", metavar="K", min=1)] = None,
    bits: Annotated[int, typer.Option(help="Bits of a logit: 16 or 8.")] = DEFAULTS.bits,
    protocol: Annotated[
        str, typer.Option(help=f"Whose augmentation the views have: {', '.join(PROTOCOLS)}.")
    ] = DEFAULTS.protocol,
    network: Annotated[str | None, optional("Network of a checkpoint. Default: the protocol's.", options.MODEL)] = None,
    size: Annotated[
        int | None, optional("Image size that will be trained on, in pixels. Default: the teacher's.")
    ] = None,
    source: options.RunSource = None,
    data: options.Data = None,
    test_data: options.TestData = None,
    variant: options.Variant = None,
    columns: options.Columns = None,
    class_map: options.ClassMap = None,
    seed: options.Seed = DEFAULTS.seed,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Store a teacher's soft labels of a distilled set.

    \b
    Examples:
      dmgd relabel runs/digits --teacher my-teacher --out labels
      dmgd relabel runs/nette --teacher efficientnet-lite0 --bits 8 --out l8
    """
    config = RelabelConfig(views, top_k, bits, protocol, network, size, seed, tiles)

    from dmgd.evaluation.imageset import read_sets, source_of
    from dmgd.workflows.relabel import relabel

    given = {"data": data, "test_data": test_data, "variant": variant, "columns": columns, "class_map": class_map}
    spec = source_of(read_sets([run]), name=source, **given)
    index = relabel(run, teacher, config, out=out, source=spec, device=device, progress=Display())
    if json:
        print_json({"path": str(out), **index})
    else:
        show(index, out)


def show(index: dict[str, Any], out: Path) -> None:
    """Print the bytes, and the error of the probabilities."""
    labels, images = index["bytes"], index["set"]["image_bytes"]
    print_line(f"{out}: {labels:,} bytes of labels beside {images:,} bytes of images ({100 * labels / images:.0f} %)")
    for temperature, error in index["errors"].items():
        print_line(
            f"error of the probabilities at temperature {temperature}: "
            f"largest {error['largest']:.2g}, mean {error['mean']:.2g}"
        )
