"""Testing a network: the confusion matrix on test images."""

from collections.abc import Callable
from concurrent.futures import Executor

import torch
from jaxtyping import Int64, UInt8
from torch import Generator, Tensor, nn

from dmgd.evaluation.augmentation import to_unit
from dmgd.evaluation.cores import Whole
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.protocols import CURVE_IMAGES

TEST_BATCH, TEST_PIXELS = 512, 512 * 64 * 64  # at most so many images, and so many pixels, at once


def confusion_on(
    network: nn.Module,
    test: ImageSet,
    normalise: Callable[[Tensor], Tensor],
    device: torch.device | str,
    cores: Executor = Whole(),
    at_once: int = TEST_BATCH,
) -> Int64[Tensor, "k k"]:
    """The confusion matrix (true class, predicted class) of the network on the test images, computed by `cores`, each
    with at most `at_once` images at a time."""
    was_training, pixels = network.training, test.images.shape[-2] * test.images.shape[-1]

    @torch.no_grad()
    def predicted(part: UInt8[Tensor, "b c h w"]) -> Int64[Tensor, " b"]:
        return network(normalise(to_unit(part.to(device)))).argmax(1).cpu()

    network.eval()
    parts = test.images.split(max(1, min(at_once, TEST_PIXELS // pixels)))
    found = torch.cat(list(cores.map(predicted, parts)))
    network.train(was_training)
    return confusion_matrix(test.labels, found, len(test.classes))


def confusion_matrix(labels: Int64[Tensor, " n"], predicted: Int64[Tensor, " n"], count: int) -> Int64[Tensor, "k k"]:
    """How many images of each true class (row) were predicted to be of each class (column)."""
    return torch.bincount(labels * count + predicted, minlength=count**2).view(count, count)


def top1(confusion: Int64[Tensor, "k k"]) -> float:
    """The accuracy in %."""
    return 100 * float(confusion.diagonal().sum()) / float(confusion.sum())


def curve_images(test: ImageSet) -> ImageSet:
    """At most CURVE_IMAGES of the test images, the same ones for every training."""
    if len(test) <= CURVE_IMAGES:
        return test
    return test.select(torch.randperm(len(test), generator=Generator().manual_seed(0))[:CURVE_IMAGES], test.name)
