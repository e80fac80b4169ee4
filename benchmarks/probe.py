"""The linear probe on the sets of a bench: a linear classifier on EfficientNet-Lite0's features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dmgd.evaluation.bench_config import PlannedSet
from dmgd.evaluation.bench_sets import BenchSets
from dmgd.evaluation.features import Features, feature_network
from dmgd.evaluation.imageset import ImageSet, Shape
from dmgd.evaluation.measure import L2, open_reference, train_probe
from dmgd.evaluation.protocols import PROBE, Protocol
from dmgd.evaluation.results import Result
from dmgd.files import written_whole
from dmgd.progress import Progress
from dmgd.sources.source import Source

NETWORK = "efficientnet-lite0"


@dataclass(frozen=True)
class KeptFeatures(Features):
    """Features that are kept in a folder, in a file for every set."""

    folder: Path

    def rows(self, data: ImageSet, on_images: Callable[[int], None] = lambda count: None) -> np.ndarray:
        path = self.folder / f"{data.digest[:32]}.npy"
        if not path.is_file():
            rows = super().rows(data, on_images)
            self.folder.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as temporary, temporary.open("wb") as file:
                np.save(file, rows, allow_pickle=False)
        return np.load(path, allow_pickle=False)


def probed(
    planned: Sequence[PlannedSet], sets: BenchSets, source: Source, device: str, kept: Path, progress: Progress
) -> list[Result]:
    """The probe's result on every set that is made, at the size of the prior's images, tested on the source's test
    images. Features are kept in the folder `kept`."""
    assert sets.prior is not None
    shape = Shape(sets.prior.image_size, sets.prior.image_size, sets.prior.image_channels)
    features = KeptFeatures(NETWORK, feature_network(NETWORK, device), kept)
    reference = open_reference(features, source, shape, progress=progress)
    # What the tables ask of a protocol: a single step on the whole set, without augmentation.
    terms = Protocol(
        PROBE, NETWORK, "own", "lbfgs", learning_rate=1.0, weight_decay=L2, schedule="cosine",
        augmentation=("normalise",), normalisation="own", epochs=1, size=shape.size, resize=shape.size,
    )  # fmt: skip
    results = []
    with progress.task("probe", len(planned), "sets") as task:
        for one in planned:
            task.describe(str(one))
            if made := sets.made(one):
                own = replace(terms, batch_size=made.facts.images)
                training = train_probe(sets.at(one, shape), reference, one.seed)
                results.append(Result(made.facts, own, 0, replace(training, seconds=0.0)))
            task.advance()
    return results
