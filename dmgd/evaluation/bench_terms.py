"""The terms under which a bench compares sets: a protocol with a network, the test images, the teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dmgd.errors import ArtifactError
from dmgd.evaluation.bench_config import BenchConfig
from dmgd.evaluation.bench_labels import BenchLabels
from dmgd.evaluation.imageset import ImageSet, Shape, source_set, usual_shape
from dmgd.evaluation.label_config import RelabelConfig
from dmgd.evaluation.labelling import Labelling, open_labelling
from dmgd.evaluation.planned_set import PlannedSet, views_of
from dmgd.evaluation.protocols import PROTOCOLS, Protocol, resolved
from dmgd.evaluation.scores import Scores, Wanted
from dmgd.evaluation.teacher import TeacherModel, check_teacher, open_teacher
from dmgd.evaluation.train import described
from dmgd.evaluation.training_work import TrainingWork
from dmgd.progress import Progress
from dmgd.sources.source import Source


@dataclass(frozen=True)
class Terms:
    """A protocol with its network, before it is resolved for the images of a set; the `test` images, read in
    `test_shape`, of a source of this image size; by name how the stored labels of sets are made; and for the protocol's
    own soft labels the teacher, with its name and top-1."""

    protocol: Protocol
    test: ImageSet
    test_shape: Shape
    source_size: int
    device: str
    labellings: Mapping[str, Labelling]
    teacher: TeacherModel | None = None
    teaches: Mapping[str, Any] | None = None

    @property
    def shape(self) -> Shape:
        """Of the images to train on."""
        return Shape(self.test_shape.size, self.test_shape.size, self.test_shape.channels)

    @property
    def work(self) -> TrainingWork:
        return TrainingWork(self.test, self.teacher.network if self.teacher else None, self.device)

    @property
    def scores(self) -> Scores:
        return Scores(self.test.digest, torch.device(self.device).type, self.teacher.sha256 if self.teacher else None)

    def labelling(self, one: PlannedSet) -> Labelling | None:
        """How the labels of the set are made; None if they are the protocol's."""
        return self.labellings.get(one.labels)

    def wanted(self, planned: Sequence[PlannedSet], config: BenchConfig, labels: BenchLabels) -> list[Wanted]:
        """The trainings on those sets that are made, with their labels, numbered as they were planned."""
        found = []
        for number, one in enumerate(planned):
            if data := labels.data(one, self.shape, self.labelling(one)):
                protocol = self.for_images(len(data))
                protocol = data.soft.protocol(protocol) if data.soft else protocol
                found.append(Wanted(number, data, protocol, config.seeds_of(one)))
        return found

    def for_images(self, images: int) -> Protocol:
        """The protocol resolved for a set of so many images."""
        return resolved(
            self.protocol, num_images=images, num_classes=len(self.test.classes), source_size=self.source_size
        )


def open_terms(config: BenchConfig, source: Source, device: str, progress: Progress) -> list[Terms]:
    """The terms of every protocol with every network. Test images in one size are read once, a teacher is loaded once.

    Raises UsageError for an unknown network, or one for which the images are too small; ArtifactError without test
    images or with a single class; and what `open_teacher` and `check_teacher` raise.
    """
    if len(source.classes) < 2:
        raise ArtifactError(f"{source.name} has {len(source.classes)} class; a classifier needs at least two")
    for remark in source.remarks("test"):
        progress.warn(remark)
    source_size, channels = usual_shape(source, "test")
    read: dict[Shape, ImageSet] = {}
    known: dict[RelabelConfig, Labelling] = {}
    teachers: dict[str, tuple[TeacherModel, Mapping[str, Any]]] = {}
    found = []
    for protocol in config.terms():
        sized = resolved(protocol, num_images=1, num_classes=len(source.classes), source_size=source_size)
        shape = Shape(sized.resize or 0, sized.size or 0, channels)
        if shape not in read:
            read[shape] = source_set(source, "test", "test", shape, progress=progress)
        test = read[shape]
        described(sized, test, 0)
        if protocol.loss == "soft" and protocol.name not in teachers:
            own = resolved(
                PROTOCOLS[protocol.name], num_images=1, num_classes=len(source.classes), source_size=source_size
            )
            teacher = open_teacher(config.teacher, own, test)  # its network is the protocol's, whatever the students'
            teachers[protocol.name] = teacher, check_teacher(teacher, test, device)
        labellings = {}
        for name in config.stored:
            views = views_of(name)
            how = RelabelConfig(views, protocol=protocol.name, size=shape.size) if views else RelabelConfig()
            if how not in known:
                known[how] = open_labelling(str(config.teacher), how, source, device, progress)
            labellings[name] = known[how]
        found.append(Terms(protocol, test, shape, source_size, device, labellings, *teachers.get(protocol.name, ())))
    return found
