"""What networks learned from the set, for its card."""

import json
from pathlib import Path

from dmgd.errors import ArtifactError


def read_results(path: Path) -> str:
    """The scores in a JSON of `dmgd evaluate` (`--json`, or a report's `report.json`) as a Markdown table.

    Raises ArtifactError if the file is missing or is something else.
    """
    try:
        evaluation = json.loads(path.read_text())
        settings, protocol = evaluation["settings"], evaluation["settings"]["protocol"]
        seeds = len(settings["seeds"])
        lines = [
            f"Protocol `{protocol['name']}` ({protocol['network']}, {protocol['epochs']} epochs), tested on "
            f"{settings['source']['test_images']} images of {settings['source']['name']}; "
            f"mean ± population standard deviation over {seeds} seeds.\n",
            "| trained on | images | top-1 %, last epoch | best epoch |",
            "|---|---|---|---|",
        ]
        for score in evaluation["scores"]:
            last, best = (f"{score[key]['mean']:.1f} ± {score[key]['std']:.1f}" for key in ("top1", "top1_best_epoch"))
            lines.append(f"| {score['name']} | {score['images']} | {last} | {best} |")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} is not the JSON of an evaluation ({type(error).__name__}: {error}); "
            "make it with dmgd evaluate --json"
        ) from error
    return "\n".join(lines)
