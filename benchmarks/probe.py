"""The linear probe on the sets of a bench: a linear classifier on EfficientNet-Lite0's features."""

from collections.abc import Sequence
from dataclasses import replace

from dmgd.evaluation.bench_config import PlannedSet
from dmgd.evaluation.bench_sets import BenchSets
from dmgd.evaluation.features import network_features
from dmgd.evaluation.imageset import Shape
from dmgd.evaluation.measure import L2, open_reference, train_probe
from dmgd.evaluation.protocols import PROBE, Protocol
from dmgd.evaluation.results import Result
from dmgd.progress import Progress
from dmgd.sources.source import Source

NETWORK = "efficientnet-lite0"


def probed(
    planned: Sequence[PlannedSet], sets: BenchSets, source: Source, device: str, progress: Progress
) -> list[Result]:
    """The probe's result on every set that is made, at the size of the prior's images, tested on the source's test
    images."""
    assert sets.prior is not None
    shape = Shape(sets.prior.image_size, sets.prior.image_size, sets.prior.image_channels)
    features = network_features(NETWORK, device)
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
