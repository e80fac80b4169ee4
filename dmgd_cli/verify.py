"""`dmgd verify`"""

from pathlib import Path
from typing import Annotated

import typer

from dmgd_cli import options
from dmgd_cli.output import print_json
from dmgd_cli.progress import Display


def command(
    target: Annotated[Path, typer.Argument(help="A run or an export.", show_default=False)],
    regenerate: Annotated[int, typer.Option(help="Make this many images again and compare them.", min=0)] = 0,
    tolerance: Annotated[
        int, typer.Option(help="Grey levels of 255 that a pixel made again may be off.", min=0, max=255)
    ] = 2,
    lock: Annotated[
        Path | None, typer.Option(help="Compare with this lock file.", show_default=False, metavar="FILE")
    ] = None,
    write_lock: Annotated[
        Path | None, typer.Option(help="Write a lock file to commit.", show_default=False, metavar="FILE")
    ] = None,
    stats: Annotated[
        Path | None,
        typer.Option(help="For --regenerate: the run's statistics. Default: fitted again.", show_default=False),
    ] = None,
    data: options.Data = None,
    test_data: options.TestData = None,
    variant: options.Variant = None,
    columns: options.Columns = None,
    class_map: options.ClassMap = None,
    vae: options.Vae = None,
    encoder: options.Encoder = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Check a run or an export: files, labels, reproducibility. Exit code 1 if anything differs.

    \b
    Examples:
      dmgd verify runs/digits --regenerate 10
      dmgd verify runs/digits --lock digits.lock.json
    """
    from dmgd.priors.load import load_prior, with_encoder
    from dmgd.workflows.fit_stats import fit_statistics
    from dmgd.workflows.verify import (
        Report,
        load_statistics,
        open_target,
        require_sound,
        statistics_config,
        verify_lock,
        verify_records,
        verify_regenerated,
    )
    from dmgd.workflows.verify import lock as write_lock_file

    display, report = Display(), Report()
    opened = open_target(target)
    verify_records(opened, report)
    if write_lock:
        require_sound(report, opened)
        write_lock_file(opened, write_lock)
        report.checked.append(f"wrote {write_lock}")
    if lock and not report.problems:
        verify_lock(opened, lock, report)
    if regenerate and not report.problems:
        config = opened.config
        prior = load_prior(config.prior, vae=vae, precision=config.precision, device=options.torch_device(device))  # type: ignore[arg-type]
        prior = with_encoder(prior, encoder) if encoder else prior
        if stats:
            statistics = load_statistics(opened, stats)
        else:
            source = options.open_source(config.source, data, test_data, variant, columns, class_map)
            statistics = fit_statistics(source, prior, statistics_config(opened, prior), progress=display)
        verify_regenerated(opened, regenerate, prior, statistics, report, tolerance=tolerance, progress=display)

    if json:
        print_json({"path": str(target), "equal": not report.problems, **vars(report)})
    else:
        for line in report.problems:
            typer.echo(line)
        for line in report.checked if not report.problems else []:
            typer.echo(f"ok  {line}")
    if report.problems:
        raise typer.Exit(1)
