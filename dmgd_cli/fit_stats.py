"""`dmgd fit-stats`"""

from pathlib import Path
from typing import Annotated

import typer

from dmgd.config import StatisticsConfig, default_prior
from dmgd_cli import options
from dmgd_cli.output import print_json, print_table
from dmgd_cli.progress import Display

DEFAULTS = StatisticsConfig()


def command(
    source: options.Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("stats.safetensors"),
    prior: options.Prior = None,
    vae: options.Vae = None,
    k: Annotated[int, typer.Option("--k", help="K, support points a class.")] = DEFAULTS.k,
    seed: options.Seed = DEFAULTS.seed,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Compute a dataset's statistics: support points of every class in the prior's latent space.

    \b
    Examples:
      dmgd fit-stats --source digits
      dmgd fit-stats --source digits --k 20 --out digits-k20.safetensors
    """
    config = StatisticsConfig(source, prior or default_prior(source), k, seed)

    from dmgd.fit_stats import fit_statistics
    from dmgd.priors.load import load_prior
    from dmgd.sources.source import open_source

    opened = open_source(source)
    loaded = load_prior(config.prior, vae=vae, device=options.torch_device(device))
    statistics = fit_statistics(opened, loaded, config, progress=Display())
    statistics.save(out)

    rows = [
        {"class": info.name, "images": int(count), "points": int((mass > 0).sum())}
        for info, count, mass in zip(statistics.classes, statistics.count, statistics.mass, strict=True)
    ]
    if json:
        print_json({"path": str(out), "header": statistics.header, "classes": rows})
    else:
        print_table(
            f"{source}, {loaded.identity.id}", ["class", "images", "points"], [list(row.values()) for row in rows]
        )
        typer.echo(f"wrote {out}")
