"""`dmgd bench`"""

from pathlib import Path
from typing import Annotated

import typer

from dmgd.display import Display
from dmgd.errors import UsageError
from dmgd.evaluation.bench_config import BenchConfig
from dmgd.evaluation.planned_set import FULL
from dmgd.evaluation.protocols import PROTOCOLS
from dmgd.specs import PriorSpec, SourceSpec, default_prior
from dmgd_cli import options
from dmgd_cli.announce import opened_if_here
from dmgd_cli.engine import engine_of
from dmgd_cli.options import optional
from dmgd_cli.output import print_comparison, print_json, print_line

DEFAULTS = BenchConfig()


def command(
    source: options.Source,
    methods: Annotated[
        str, typer.Option(help=f"Compare, comma-separated: {{methods}}; or {FULL}, all training images.")
    ] = ",".join(DEFAULTS.methods),
    ipc: Annotated[str, typer.Option(help="Images per class, comma-separated.")] = ",".join(map(str, DEFAULTS.ipc)),
    tiles: Annotated[
        str, typer.Option(help="Comma-separated: 1 as they are, 2 also in mosaics of 2×2 in the same pixels, …")
    ] = ",".join(map(str, DEFAULTS.tiles)),
    labels: Annotated[
        str,
        typer.Option(
            help="Comma-separated: own (the protocol's), soft (the teacher's of each image), soft-N (of N views)."
        ),
    ] = ",".join(DEFAULTS.labels),
    seeds: Annotated[int, typer.Option(help="Sets of each method, with the seeds 0, 1, …")] = DEFAULTS.seeds,
    repeats: Annotated[int, typer.Option(help="Trainings on every set, each with another seed.")] = DEFAULTS.repeats,
    networks: Annotated[
        str | None,
        optional(
            "Comma-separated: convnet-D, resnetap-10, resnet-18, -50 or -101, mobilenet-v2, efficientnet-b0, vit-tiny, "
            "swin-tiny. Default: the protocol's."
        ),
    ] = None,
    protocols: Annotated[str, typer.Option(help=f"Comma-separated: {', '.join(PROTOCOLS)}.")] = ",".join(
        DEFAULTS.protocols
    ),
    epochs: Annotated[int | None, optional("Training epochs. Default: the protocol's.")] = None,
    size: Annotated[int | None, optional("Image size in pixels of trainings. Default: the protocol's.")] = None,
    teacher: Annotated[
        str | None,
        optional("Teacher of rded-soft and of --labels: a folder, checkpoint or Hub id, or efficientnet-lite0."),
    ] = None,
    ars: Annotated[
        bool,
        typer.Option("--ars", help="Also train without augmentation, for the augmentation-robust score."),
    ] = False,
    data: options.Data = None,
    test_data: options.TestData = None,
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
    lora: options.Lora = None,
    precision: options.Precision = "auto",
    device: options.Device = "auto",
    ray: options.Ray = None,
    workers: options.Workers = None,
    gpus_per_worker: options.GpusPerWorker = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of runs, tables and report.", rich_help_panel=options.OUTPUT)
    ] = Path("bench"),
    json: options.Json = False,
) -> None:
    """Compare methods: distil, train on every set under the same terms, test.

    \b
    Examples:
      dmgd bench --source digits --methods dmgd,dit,random,kmeans-real
      dmgd bench --source imagenette --ipc 10,50 --protocols minimax-sgd
    """
    config = BenchConfig(
        methods=listed(methods),
        ipc=numbers("ipc", ipc),
        tiles=numbers("tiles", tiles),
        labels=listed(labels),
        seeds=seeds,
        repeats=repeats,
        networks=listed(networks or ""),
        protocols=listed(protocols),
        epochs=epochs,
        size=size,
        teacher=teacher,
        ars=ars,
    )
    source_spec = SourceSpec(source, data, test_data, variant, columns, class_map)
    prior_spec = PriorSpec(
        prior or default_prior(source), vae, encoder, precision, prior_revision, prior_type
    ).with_options(prompt=prompt, prompts=prompts, negative_prompt=negative_prompt, lora=lora)
    display, engine = Display(), engine_of(device, ray, workers, gpus_per_worker)
    opened = opened_if_here(source_spec, prior_spec) if config.needs_prior else source_spec

    from dmgd.workflows.bench import bench

    with engine:
        comparison = bench(
            opened,
            prior_spec,
            config,
            out=out,
            device=engine,
            progress=display,
            on_estimate=lambda estimate: display.note(str(estimate)),
        )
    result = comparison.to_json()
    if json:
        print_json(result)
    else:
        print_comparison(result)
        print_line(f"wrote {out / 'report.html'}, and beside it all tables: table.md, .tex, .csv; bench.json")


def listed(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated text."""
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)


def numbers(name: str, text: str) -> tuple[int, ...]:
    """The numbers of a comma-separated text. Raises UsageError for another text."""
    if others := [part for part in listed(text) if not part.isdecimal()]:
        raise UsageError(f"{name} must be whole numbers, comma-separated, not {others[0]!r}")
    return tuple(map(int, listed(text)))
