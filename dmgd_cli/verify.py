"""`dmgd verify`"""

from pathlib import Path
from typing import Annotated

import typer

from dmgd.config import VerifyConfig
from dmgd_cli import options
from dmgd_cli.options import optional
from dmgd_cli.output import print_json, print_line

DEFAULTS = VerifyConfig()


def command(
    target: Annotated[Path, typer.Argument(help="A run or an export.", show_default=False)],
    regenerate: Annotated[
        int, typer.Option(help="Regenerate this many images and compare them.", min=0)
    ] = DEFAULTS.regenerate,
    tolerance: Annotated[
        int, typer.Option(help="Grey levels of 255 that a regenerated pixel may differ by.", min=0, max=255)
    ] = DEFAULTS.tolerance,
    lock: Annotated[Path | None, optional("Compare with this lock file.", metavar="FILE")] = None,
    write_lock: Annotated[Path | None, optional("Write a lock file to commit.", metavar="FILE")] = None,
    stats: Annotated[Path | None, optional("For --regenerate: the run's statistics. Default: fitted again.")] = None,
    source: options.RunSource = None,
    data: options.Data = None,
    variant: options.Variant = None,
    columns: options.Columns = None,
    class_map: options.ClassMap = None,
    prior: options.RunPrior = None,
    vae: options.Vae = None,
    encoder: options.Encoder = None,
    prompts: options.RunPrompts = None,
    lora: options.RunLora = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Check a run or an export: files, labels, reproducibility. Exit code 1 if anything differs.

    \b
    Examples:
      dmgd verify runs/digits --regenerate 10
      dmgd verify runs/digits --lock digits.lock.json
    """
    from dmgd.exporters.distilled import DistilledSet
    from dmgd.workflows.verify import verify

    found = DistilledSet.open(target)
    own_source, own_prior = found.specs
    report = verify(
        found,
        VerifyConfig(regenerate, tolerance, stats, lock, write_lock),
        source=own_source.with_options(name=source, data=data, variant=variant, columns=columns, class_map=class_map),
        prior=own_prior.with_options(name=prior, vae=vae, encoder=encoder, prompts=prompts, lora=lora),
        device=device,
        progress=True,
    )

    if json:
        print_json({"path": str(target), "equal": not report.problems, **vars(report)})
    else:
        for line in report.problems:
            print_line(line)
        for line in report.checked if not report.problems else []:
            print_line(f"ok  {line}")
    if report.problems:
        raise typer.Exit(1)
