"""`dmgd train-teacher`"""

from pathlib import Path
from typing import Annotated

import typer

from dmgd.display import Display
from dmgd.evaluation.label_config import LEAST_EPOCHS, TeacherConfig
from dmgd.evaluation.protocols import PROTOCOLS
from dmgd.network import require_arrivals
from dmgd.specs import SourceSpec
from dmgd_cli import options
from dmgd_cli.options import optional
from dmgd_cli.output import print_json, print_line

DEFAULTS = TeacherConfig()
LEARNED_FROM = ", ".join(name for name, protocol in PROTOCOLS.items() if protocol.loss == "hard")


def command(
    source: options.Source,
    out: Annotated[Path, optional("New or empty folder of the teacher.", None, "--out", "-o")],
    network: Annotated[
        str | None, optional("Network, such as resnet-18 or convnet-3. Default: the protocol's.")
    ] = DEFAULTS.network,
    protocol: Annotated[str, typer.Option(help=f"How it is trained: {LEARNED_FROM}.")] = DEFAULTS.protocol,
    epochs: Annotated[
        int | None, optional(f"Training epochs. Default: the protocol's, at least {LEAST_EPOCHS}.")
    ] = DEFAULTS.epochs,
    size: Annotated[int | None, optional("Image size in pixels. Default: the protocol's.")] = DEFAULTS.size,
    data: options.Data = None,
    test_data: options.TestData = None,
    variant: options.Variant = None,
    columns: options.Columns = None,
    class_map: options.ClassMap = None,
    seed: options.Seed = DEFAULTS.seed,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Train a network on a whole dataset, as a teacher that gives soft labels.

    \b
    Examples:
      dmgd train-teacher --source digits --network convnet-2 --out my-teacher
      dmgd train-teacher --source imagenette --network resnet-18 --size 64 --out t
    """
    config = TeacherConfig(network, protocol, epochs, size, seed)
    spec = SourceSpec(source, data, test_data, variant, columns, class_map)

    from dmgd.sources.open import source_arrival
    from dmgd.workflows.train_teacher import train_teacher

    require_arrivals(source_arrival(spec))
    described = train_teacher(spec, config, out=out, device=device, progress=Display())

    if json:
        print_json({"path": str(out), **described})
    else:
        tested = described["source"]["test_images"]
        print_line(
            f"trained {out}: {described['top1']:.1f} % top-1 on {tested} test images of {described['source']['name']}"
        )
        print_line(f"next: dmgd relabel RUN --teacher {out} --out LABELS")
