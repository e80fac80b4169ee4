"""The workflow `train-teacher`: source images → a network that gives soft labels."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dmgd.config import configured
from dmgd.errors import ArtifactError, UsageError
from dmgd.evaluation.augmentation import channel_statistics
from dmgd.evaluation.checkpoint import Checkpoint
from dmgd.evaluation.cores import fitting_threads
from dmgd.evaluation.imageset import Shape, source_set, usual_shape
from dmgd.evaluation.label_config import TeacherConfig
from dmgd.evaluation.protocols import resolved
from dmgd.evaluation.teacher_folder import (
    CHECKPOINT,
    is_teacher_folder,
    read_description,
    require_own,
    write_teacher,
)
from dmgd.evaluation.train import described, seeded_network, train_network
from dmgd.exporters.distilled import require_outside_sets
from dmgd.files import remove_temporaries
from dmgd.guard import guarded
from dmgd.priors.load import torch_device
from dmgd.progress import Progress, listener
from dmgd.runs.prior_folder import require_same
from dmgd.sources.open import as_source
from dmgd.sources.source import Source
from dmgd.specs import SourceSpec


def train_teacher(
    source: Source | SourceSpec | str,
    config: TeacherConfig | None = None,
    *,
    out: Path | str,
    device: str = "auto",
    progress: Progress | bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Train a network on the source's whole training split, by a configuration or its `settings`, such as
    network="resnet-18" or epochs=60, and write it to the folder `out`, which is a teacher for `evaluate`. Returns its
    description: network, input, classes in order, top-1 in % on the test split, and the digest of the weights.

    A training that was interrupted goes on from its last minute, and ends with the weights that it would have had
    undisturbed; a finished one is left as it is. Raises UsageError if `out` holds
    something else or the images are too small for the network, MismatchError if it holds a teacher with other settings,
    ArtifactError for a source of one class or without a test split, DmgdError if the loss becomes NaN or infinite.
    """
    config, progress = configured(TeacherConfig, config, settings), listener(progress)
    out, on = Path(out), str(torch_device(device))
    require_outside_sets(out)
    require_own(out)
    source = as_source(source, progress)
    with guarded(out):
        remove_temporaries(out)
        asked = {"source": source.name, "variant": source.variant, **asdict(config)}
        if is_teacher_folder(out):
            found = read_description(out)
            require_same(out, found["asked"], asked)
            (out / CHECKPOINT).unlink(missing_ok=True)
            progress.note(f"{out} is finished, and left as it is")
            return found

        # The images, and the protocol for their number.
        for remark in (*source.remarks("train"), *source.remarks("test")):
            progress.warn(remark)
        source_size, channels = usual_shape(source, "test")
        chosen, classes = config.chosen(), source.classes
        if len(classes) < 2:
            raise ArtifactError(f"{source.name} has {len(classes)} class; a classifier needs at least two")
        sized = resolved(chosen, num_images=1, num_classes=len(classes), source_size=source_size)
        shape = Shape(sized.resize or 0, sized.size or 0, channels)
        test = source_set(source, "test", "test", shape, progress=progress)
        described(sized, test, config.seed)  # refuses images that are too small
        data = source_set(source, "train", source.name, Shape(shape.size, shape.size, channels), progress=progress)
        if empty := [info.name for info, count in zip(classes, data.counts, strict=True) if not count]:
            raise UsageError(
                f"{source.name} has no training image of {empty[0]!r}; a teacher must have seen all classes"
            )
        protocol = resolved(chosen, num_images=len(data), num_classes=len(classes), source_size=source_size)
        protocol = config.long_enough(protocol)

        # The training, or the rest of it.
        checkpoint = Checkpoint(out / CHECKPOINT, began := {**asked, "images": data.digest, "device": on})
        if there := checkpoint.asked():
            require_same(out, there, began)
            progress.note(f"continuing the training that was interrupted in {out}")
        epochs = protocol.epochs or 1
        progress.note(f"{protocol.network} of {shape.size} pixels, {len(data):,} images, {epochs} epochs")
        network = seeded_network(protocol, data, config.seed).to(on)
        with progress.task("train", epochs, "epochs") as bar, fitting_threads(shape.size, on):
            training = train_network(
                network, data, test, protocol, config.seed, on_epoch=bar.advance, checkpoint=checkpoint
            )
        mean, std = channel_statistics(data.images, protocol)
        known: dict[str, Any] = {
            "asked": asked,
            "network": protocol.network,
            "norm": protocol.norm,
            "size": shape.size,
            "channels": channels,
            "mean": mean,
            "std": std,
            "classes": [info.to_json() for info in classes],
            "source": {"name": source.name, "variant": source.variant, "images": len(data), "test_images": len(test)},
            "top1": round(training.last, 3),
            "protocol": asdict(protocol),
            "seconds": round(training.seconds, 1),
            "device": on,
            "versions": {"dmgd": version("dmgd"), "torch": torch.__version__},
        }
        described_teacher = write_teacher(out, network, known)
        checkpoint.remove()
        return described_teacher
