"""`dmgd evaluate`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from dmgd.display import Display
from dmgd.errors import UsageError, unknown_choice
from dmgd.evaluation.protocols import BASELINES, PROTOCOLS, EvaluateConfig
from dmgd_cli import options
from dmgd_cli.engine import engine_of
from dmgd_cli.options import optional
from dmgd_cli.output import print_json, print_line, print_table, typed_command

DEFAULTS = EvaluateConfig()


def command(
    run: Annotated[
        Path,
        typer.Argument(help="A run, an export, or another tool's set, such as an image folder.", show_default=False),
    ],
    source: options.RunSource = None,
    protocol: Annotated[str, typer.Option(help=f"One of {', '.join(PROTOCOLS)}.")] = DEFAULTS.protocol,
    against: Annotated[
        str,
        typer.Option(
            help=f"Compare with, comma-separated: {', '.join(BASELINES)} or paths of other sets; "
            "runs that differ in their seeds are one row."
        ),
    ] = ",".join(DEFAULTS.against),
    repeats: Annotated[int, typer.Option(help="Trainings per set, each with another seed.")] = DEFAULTS.repeats,
    epochs: Annotated[int | None, optional("Training epochs. Default: the protocol's.")] = None,
    network: Annotated[
        str | None,
        optional(
            "convnet-D, resnetap-10, resnet-18, -50 or -101, mobilenet-v2, efficientnet-b0, vit-tiny, swin-tiny, or "
            "probe (a linear classifier on --features). "
            "Default: the protocol's."
        ),
    ] = None,
    size: Annotated[int | None, optional("Image size in pixels. Default: the protocol's.")] = None,
    teacher: Annotated[
        str | None, optional("Teacher of rded-soft: a folder, checkpoint or Hub id, or efficientnet-lite0.")
    ] = None,
    labels: Annotated[
        str | None,
        optional(
            "Folders of dmgd relabel, comma-separated, to train on the sets that they are of; stored: those in RUN."
        ),
    ] = None,
    weighted: Annotated[
        bool, typer.Option("--weighted", help="Count each image in the loss by its weight, the share it stands for.")
    ] = False,
    classes: Annotated[
        str, typer.Option(help="Match classes by name, index, or auto (by name; another order is refused).")
    ] = "auto",
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Also compute set metrics: distances, coverage, diversity, detail, probe.")
    ] = False,
    features: Annotated[
        str | None,
        optional(
            "For --metrics and the probe: efficientnet-lite0, or a transformers image model. "
            "Default: the prior's latents."
        ),
    ] = None,
    tiles: Annotated[
        int | None, optional("Shrink the images as export --tiles does. Default: as they are stored.", min=1)
    ] = None,
    report: Annotated[Path | None, optional("Folder for report.json and report.html.")] = None,
    data: options.Data = None,
    test_data: options.TestData = None,
    variant: options.Variant = None,
    columns: options.Columns = None,
    class_map: options.ClassMap = None,
    prior: options.RunPrior = None,
    vae: options.Vae = None,
    prompts: options.RunPrompts = None,
    lora: options.RunLora = None,
    seed: options.Seed = DEFAULTS.seed,
    device: options.Device = "auto",
    ray: options.Ray = None,
    workers: options.Workers = None,
    gpus_per_worker: options.GpusPerWorker = None,
    json: options.Json = False,
) -> None:
    """Train classifiers on a distilled set and test them on real images.

    \b
    Examples:
      dmgd evaluate runs/digits --against random,kmeans-real,dit,full
      dmgd evaluate runs/digits --metrics --report runs/digits-report
    """
    names = [name for name in against.split(",") if name]
    paths = [Path(name) for name in names if name not in BASELINES]
    for path in paths:
        if not path.exists():
            raise unknown_choice("baseline", str(path), (*BASELINES, "the path of another set"))
    baselines = tuple(name for name in names if name in BASELINES)
    training = protocol, repeats, seed, epochs, network, size, baselines, teacher, classes
    folders = tuple(str(run) if name == "stored" else name for name in (labels or "").split(",") if name)
    config = EvaluateConfig(*training, metrics, features, report is not None, tiles, folders, weighted)
    config.chosen()
    if (prior or vae or prompts or lora) and not config.needs_prior:
        raise UsageError(
            "--prior, --vae, --prompts and --lora have no effect here: no baseline, metric, probe or "
            "report uses a prior"
        )
    if report:
        from dmgd.exporters.distilled import require_outside_sets

        require_outside_sets(report / "report.json")

    display = Display()
    with engine_of(device, ray, workers, gpus_per_worker) as engine:
        from dmgd.evaluation.imageset import prior_of, read_sets, source_of
        from dmgd.evaluation.report import write_report
        from dmgd.workflows.evaluate import evaluate

        sets = read_sets([run, *paths])
        given = {"data": data, "test_data": test_data, "variant": variant, "columns": columns, "class_map": class_map}
        spec = source_of(sets, name=source, **given)
        evaluation = evaluate(
            sets,
            spec,
            prior_of(sets, spec.name, name=prior, vae=vae, prompts=prompts, lora=lora),
            config,
            device=engine,
            progress=display,
            on_header=lambda settings: show_header(settings, display),
        )
    evaluation.settings["command"] = typed_command()
    result = evaluation.to_json()
    if json:
        print_json(result)
    else:
        show(result)
    if report:
        write_report(evaluation, report)
        display.note(f"wrote {report / 'report.html'} and {report / 'report.json'}")


def show_header(settings: dict[str, Any], display: Display) -> None:
    """Show all settings of the protocol on a line, and the teacher's accuracy."""
    protocol = settings["protocol"]
    listed = ", ".join(
        f"{key.replace('_', ' ')} {'+'.join(value) if isinstance(value, list | tuple) else value}"
        for key, value in protocol.items()
        if key not in ("name", "network")
    )
    display.note(f"protocol {protocol['name']}: {protocol['network']}, {settings['parameters']:,} parameters, {listed}")
    for name, least, most in settings.get("weights", ()):
        display.note(f"weights of the images of {name}: from {least:.2f} to {most:.2f}, their mean is 1")
    for one in settings.get("labels", ()):
        of = f"{one['views']} views of each image of" if one["views"] else "the images of"
        by = f"{one['teacher']['name']} ({one['teacher']['top1']:.1f} % top-1)"
        display.note(
            f"soft labels of {of} {one['set']} by {by}: {one['bytes']:,} bytes beside {one['image_bytes']:,} of images"
        )
    if teacher := settings.get("teacher"):
        display.note(f"teacher {teacher['name']}: {teacher['top1']:.1f} % top-1 on the test images")


def show(result: dict[str, Any]) -> None:
    """Print the result as tables and statements."""
    from dmgd.evaluation.comparison import accuracy_table, ddranking_lines, metrics_table

    settings = result["settings"]
    title = f"top-1 % on {settings['source']['test_images']} test images of {settings['source']['name']}"
    print_table(title, *accuracy_table(result["scores"]))
    for line in (*result["statements"], *ddranking_lines(result)):
        print_line(line)
    if "metrics" in result:
        title = f"set metrics at {settings['measured_size']} pixels, in {settings['features']}"
        print_table(title, *metrics_table(result["metrics"]))
