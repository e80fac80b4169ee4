"""`dmgd evaluate`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from dmgd.evaluation.protocols import PROTOCOLS, EvaluateConfig
from dmgd_cli import options
from dmgd_cli.output import print_json, print_table
from dmgd_cli.progress import Display

DEFAULTS = EvaluateConfig()


def command(
    run: Annotated[Path, typer.Argument(help="The set to evaluate: a run of dmgd distill.", show_default=False)],
    source: Annotated[
        str | None,
        typer.Option(help="Dataset whose test images are used. Default: the run's own.", show_default=False),
    ] = None,
    protocol: Annotated[str, typer.Option(help=f"One of {', '.join(PROTOCOLS)}.")] = DEFAULTS.protocol,
    against: Annotated[str, typer.Option(help="What else to train on, with commas: random, full.")] = ",".join(
        DEFAULTS.against
    ),
    repeats: Annotated[int, typer.Option(help="Networks trained on each set.")] = DEFAULTS.repeats,
    epochs: Annotated[int | None, typer.Option(help="Default: the protocol's.", show_default=False)] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="convnet-D, resnetap-10, resnet-18, resnet-101. Default: the protocol's.", show_default=False
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Image size in pixels. Default: the protocol's.", show_default=False)
    ] = None,
    classes: Annotated[
        str,
        typer.Option(help="Match classes by name, by index, or auto: by name, and refuse another order."),
    ] = "auto",
    seed: options.Seed = DEFAULTS.seed,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Train classifiers on a distilled set and test them on real images.

    \b
    Examples:
      dmgd evaluate runs/digits
      dmgd evaluate runs/digits --against random,full --repeats 3 --json
    """
    names = tuple(name for name in against.split(",") if name)
    config = EvaluateConfig(protocol, repeats, seed, epochs, network, size, names)
    config.chosen()

    from dmgd.evaluate import evaluate
    from dmgd.evaluation.inputs import read_labelled
    from dmgd.imagesets import source_named
    from dmgd.sources.source import open_source

    found = read_labelled(run)
    opened = open_source(source_named(source, [found]))
    result = evaluate(
        config, found, opened, matching=classes, device=options.torch_device(device), progress=Display()
    ).to_json()
    if json:
        print_json(result)
    else:
        show(result)


def show(result: dict[str, Any]) -> None:
    """The result as a table and its statements."""
    settings = result["settings"]
    protocol = settings["protocol"]
    title = f"top-1 % on {settings['source']['test_images']} test images of {settings['source']['name']}, "
    title += f"{protocol['name']}: {protocol['network']}, {len(settings['seeds'])} repeats"
    rows = [
        [s["name"], s["images"], _plus_minus(s["top1"]), _plus_minus(s["top1_best_epoch"]), f"{s['seconds']:.0f}"]
        for s in result["scores"]
    ]
    print_table(title, ["trained on", "images", "last epoch", "best epoch", "seconds"], rows)
    for line in result["statements"]:
        typer.echo(line)


def _plus_minus(value: dict[str, float]) -> str:
    return f"{value['mean']:.1f} ± {value['std']:.1f}"
