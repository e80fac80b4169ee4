"""`dmgd distill`"""

from pathlib import Path
from typing import Annotated

import typer

from dmgd.config import DEFAULT_METHOD, METHODS, DistillConfig, method_named
from dmgd.specs import PriorSpec, SourceSpec, default_prior
from dmgd_cli import method_options, options
from dmgd_cli.output import print_json
from dmgd_cli.progress import Display

DEFAULTS = DistillConfig()


def command(
    source: options.Source,
    out: options.OutFolder,
    ipc: Annotated[int, typer.Option(help="Images per class.")] = DEFAULTS.ipc,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = DEFAULT_METHOD,
    data: options.Data = None,
    variant: options.Variant = None,
    columns: options.Columns = None,
    class_map: options.ClassMap = None,
    prior: options.Prior = None,
    prior_revision: options.PriorRevision = None,
    vae: options.Vae = None,
    encoder: options.Encoder = None,
    stats: Annotated[
        Path | None,
        typer.Option(help="Statistics of dmgd fit-stats. Default: fitted, and kept in the cache.", show_default=False),
    ] = None,
    seed: options.Seed = DEFAULTS.seed,
    batch_size: Annotated[
        int | None, typer.Option(help="Images in flight. Default: what fills the device and fits.", show_default=False)
    ] = None,
    precision: options.Precision = "fp32",
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network, which takes a minute; meant for GPUs.")
    ] = False,
    device: options.Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Only continue the run in --out; begin no new one.")] = False,
    guidance_scale: method_options.GuidanceScale = None,
    guidance_interval: method_options.GuidanceInterval = None,
    no_semantic: method_options.Semantic = False,
    no_distribution: method_options.Distribution = False,
    beta_n: method_options.BetaN = None,
    beta_s: method_options.BetaS = None,
    stages: method_options.Stages = None,
    rho: method_options.Rho = None,
    keep_detail: method_options.Detail = None,
    k: method_options.K = None,
    epsilon: method_options.Epsilon = None,
    sinkhorn_iterations: method_options.Iterations = None,
    window: method_options.Window = None,
    order: method_options.Order = None,
    solver: method_options.Solver = None,
    steps: method_options.Steps = None,
    json: options.Json = False,
) -> None:
    """Distil a dataset into a few synthetic images per class.

    \b
    Examples:
      dmgd distill --source digits --ipc 10 --out runs/digits
      dmgd distill --source digits --ipc 1 --method dmgd-paper --rho 5 --out runs/paper
    """
    chosen = method_named(
        method,
        semantic=not no_semantic,
        distribution=not no_distribution,
        guidance_scale=guidance_scale,
        guidance_interval=guidance_interval,
        beta_n=beta_n,
        beta_s=beta_s,
        stages=stages,
        rho=rho,
        keep_detail=keep_detail,
        k=k,
        epsilon=epsilon,
        sinkhorn_iterations=sinkhorn_iterations,
        window=window,
        order=order,
        solver=solver,
        steps=steps,
    )
    config = DistillConfig(ipc, seed, method, chosen, batch_size, compile)
    source_spec = SourceSpec(source, data, None, variant, columns, class_map)
    prior_spec = PriorSpec(prior or default_prior(source), vae, encoder, precision, prior_revision)

    # Before torch is imported and weights are fetched, so that wrong paths and classes are said at once.
    from dmgd.priors.description import check_classes
    from dmgd.sources.open import open_source

    opened = open_source(source_spec)
    check_classes(prior_spec, opened.classes)

    from dmgd.priors.load import load_prior
    from dmgd.statistics.file import Statistics
    from dmgd.workflows.distill import distill

    statistics = Statistics.load(stats) if stats else None
    loaded = load_prior(prior_spec, device=options.torch_device(device))
    run = distill(opened, loaded, config, out, statistics=statistics, resume=resume, progress=Display())

    images = len(run.records())
    if json:
        print_json({"path": str(out), "images": images, **run.manifest})
    else:
        typer.echo(f"distilled {images} images of {len(run.classes)} classes into {out}")
        typer.echo(f"next: dmgd evaluate {out}   or   dmgd export {out} --format webdataset --out DIR")
