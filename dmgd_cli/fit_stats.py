"""`dmgd fit-stats`"""

from pathlib import Path
from typing import Annotated

import typer

from dmgd.config import StatisticsConfig
from dmgd.display import Display
from dmgd.errors import UsageError
from dmgd.network import require_arrivals
from dmgd.specs import PriorSpec, SourceSpec, default_prior
from dmgd_cli import options
from dmgd_cli.announce import arrivals, opened_if_here
from dmgd_cli.engine import engine_of
from dmgd_cli.options import optional
from dmgd_cli.output import print_json, print_line, print_table

DEFAULTS = StatisticsConfig()


def command(
    source: options.Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("stats.safetensors"),
    data: options.Data = None,
    variant: options.Variant = None,
    columns: options.Columns = None,
    class_map: options.ClassMap = None,
    prior: options.Prior = None,
    prior_type: options.PriorType = None,
    prior_revision: options.PriorRevision = None,
    vae: options.Vae = None,
    encoder: options.Encoder = None,
    size: options.Size = None,
    k: Annotated[int, typer.Option("--k", help="K, support points per class.")] = DEFAULTS.k,
    mirror: Annotated[bool, typer.Option("--mirror", help="Add every image's mirror image.")] = DEFAULTS.mirror,
    max_bad: Annotated[float, typer.Option(help="Maximum fraction of unreadable images.")] = DEFAULTS.max_bad,
    seed: options.Seed = DEFAULTS.seed,
    workers: Annotated[
        int | None,
        optional(
            "Processes that decode images, default one per core; with --ray its workers, default as many as fit.", min=0
        ),
    ] = None,
    cache: Annotated[bool, typer.Option(help="Cache latents and statistics, and reuse them.")] = True,
    device: options.Device = "auto",
    ray: options.Ray = None,
    gpus_per_worker: options.GpusPerWorker = None,
    json: options.Json = False,
) -> None:
    """Compute a dataset's statistics: support points of every class in the prior's latent space.

    \b
    Examples:
      dmgd fit-stats --source digits
      dmgd fit-stats --source imagenette --data ~/data/imagenette --k 20
    """
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; name a file, such as {out / 'stats.safetensors'}")
    config = StatisticsConfig(k, seed, mirror, max_bad)
    prior_spec = PriorSpec(
        prior or default_prior(source), vae, encoder, revision=prior_revision, prior_type=prior_type, size=size
    )

    from dmgd.exporters.distilled import require_outside_sets

    require_outside_sets(out)
    display, source_spec = Display(), SourceSpec(source, data, None, variant, columns, class_map)
    with engine_of(device, ray, workers if ray else None, gpus_per_worker) as engine:
        opened = opened_if_here(source_spec, prior_spec)
        require_arrivals(*arrivals(source_spec, prior_spec))

        from dmgd.workflows.fit_stats import fit_statistics

        statistics = fit_statistics(
            opened, prior_spec, config, cache=cache, workers=workers, device=engine, progress=display
        )
    statistics.save(out)

    rows = statistics.quality()
    if json:
        print_json({"path": str(out), "header": statistics.header, "classes": rows})
    else:
        print_table(
            f"{source}, {statistics.header['prior']['id']}, encoded by {statistics.header['encoder']['id']}",
            ["class", "images", "points", "W₂², K = 1", f"W₂², K = {k}", "ratio"],
            [[row["class"].split(",")[0], *list(row.values())[1:]] for row in rows],  # the first synonym
        )
        print_line(f"wrote {out}")
