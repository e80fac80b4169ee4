"""`dmgd bench`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from dmgd.display import Display
from dmgd.errors import UsageError
from dmgd.evaluation.bench_config import REAL, BenchConfig
from dmgd.evaluation.protocols import PROTOCOLS
from dmgd.specs import PriorSpec, SourceSpec, default_prior
from dmgd_cli import options
from dmgd_cli.announce import opened_if_here
from dmgd_cli.engine import engine_of
from dmgd_cli.options import optional
from dmgd_cli.output import print_json, print_line, print_table

DEFAULTS = BenchConfig()


def command(
    source: options.Source,
    methods: Annotated[
        str, typer.Option(help=f"Compare, comma-separated: {{methods}}, or real images: {', '.join(REAL)}.")
    ] = ",".join(DEFAULTS.methods),
    ipc: Annotated[str, typer.Option(help="Images per class, comma-separated.")] = ",".join(map(str, DEFAULTS.ipc)),
    seeds: Annotated[int, typer.Option(help="Sets of each method, with the seeds 0, 1, …")] = DEFAULTS.seeds,
    repeats: Annotated[int, typer.Option(help="Trainings on every set, each with another seed.")] = DEFAULTS.repeats,
    networks: Annotated[
        str | None,
        optional("Comma-separated: convnet-D, resnetap-10, resnet-18, resnet-101. Default: the protocol's."),
    ] = None,
    protocols: Annotated[str, typer.Option(help=f"Comma-separated: {', '.join(PROTOCOLS)}.")] = ",".join(
        DEFAULTS.protocols
    ),
    epochs: Annotated[int | None, optional("Training epochs. Default: the protocol's.")] = None,
    size: Annotated[int | None, optional("Image size in pixels of trainings. Default: the protocol's.")] = None,
    teacher: Annotated[
        str | None, optional("Teacher of rded-soft: a folder, checkpoint or Hub id, or efficientnet-lite0.")
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
        ipc=tuple(number(text) for text in listed(ipc)),
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
        show(result)
        print_line(f"wrote {out / 'table.md'}, and beside it .tex, .csv and bench.json")


def show(result: dict[str, Any]) -> None:
    """Print the tables with their notes, what they say, and the warnings."""
    from dmgd.evaluation.comparison_views import tables

    for table in tables(result):
        print_table(table.title, table.columns, table.rows)
        for note in table.notes:
            print_line(note)
    for line in (*result["summary"], *(f"warning: {line}" for line in result["warnings"])):
        print_line(line)


def listed(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated text."""
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)


def number(text: str) -> int:
    """The number. Raises UsageError for another text."""
    if not text.isdecimal():
        raise UsageError(f"ipc must be whole numbers, comma-separated, not {text!r}")
    return int(text)
