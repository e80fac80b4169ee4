"""DSA's augmentation against the obvious code for one image, and its protocol against the published one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from dmgd.evaluation import dsa
from dmgd.evaluation.augmentation import augment, normaliser
from dmgd.evaluation.networks import make_network, parameter_count
from dmgd.evaluation.protocols import PROTOCOLS, learning_rate_factor, resolved


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def images(generator):
    return torch.randn((5, 3, 16, 12), generator=generator)


def test_colour(images, generator):
    drawn = torch.rand((3, 5, 1, 1, 1), generator=generator)
    for image, b, s, c, found in zip(images, *drawn.flatten(1), dsa.colour(images, *drawn), strict=True):
        image = image + b - 0.5
        grey = image.mean(0)
        image = grey + 2 * s * (image - grey)
        torch.testing.assert_close(found, image.mean() + (0.5 + c) * (image - image.mean()))


def test_shift_is_a_crop_of_the_padded_image(images):
    by = torch.tensor([[2, -1], [0, 0], [-2, 2], [1, 1], [2, 2]])
    for image, (dy, dx), found in zip(images, by.tolist(), dsa.shift(images, by), strict=True):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)))
        assert torch.equal(found, torch.from_numpy(padded[:, 2 + dy : 18 + dy, 2 + dx : 14 + dx]))


def test_cut_out(images):
    centres = torch.tensor([[8, 6], [0, 0], [15, 11], [16, 12], [4, 9]])
    for image, (y, x), found in zip(images, centres.tolist(), dsa.cut_out(images, centres), strict=True):
        expected = image.clone()
        rows = [min(max(y - 4 + i, 0), 15) for i in range(8)]
        columns = [min(max(x - 3 + j, 0), 11) for j in range(6)]
        for row in rows:
            expected[:, row, columns] = 0
        assert torch.equal(found, expected)


def test_scale_and_rotation_are_interpolated_about_the_middle(images):
    angle = math.radians(11)
    maps = [[[0.9, 0, 0], [0, 1.2, 0]], [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]]
    for row in maps:
        theta = torch.tensor([row] * 5)
        for image, found in zip(images, dsa.warp(images, theta), strict=True):
            y, x = np.meshgrid((np.arange(16) + 0.5) / 8 - 1, (np.arange(12) + 0.5) / 6 - 1, indexing="ij")
            (a, b, _), (c, d, _) = row
            at = [((c * x + d * y) + 1) * 8 - 0.5, ((a * x + b * y) + 1) * 6 - 0.5]
            expected = np.stack(
                [
                    map_coordinates(channel, at, order=1, cval=0.0)
                    for channel in np.pad(image.numpy(), ((0, 0), (2, 2), (2, 2)))[:, 2:-2, 2:-2]
                ]
            )
            inside = (at[0] >= 0) & (at[0] <= 15) & (at[1] >= 0) & (at[1] <= 11)
            np.testing.assert_allclose(found.numpy()[:, inside], expected[:, inside], atol=1e-4)


def test_a_batch_has_one_operation_and_every_image_its_own_parameters():
    images = torch.ones(64, 3, 32, 32) + torch.randn((64, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    kinds = set()
    for seed in range(60):
        found = dsa.dsa(images, torch.Generator().manual_seed(seed))
        operation = dsa.OPERATIONS[int(torch.randint(6, (1,), generator=torch.Generator().manual_seed(seed)))]
        kinds.add(operation)
        changed = (found - images).flatten(1)
        assert len(changed.unique(dim=0)) > (1 if operation is dsa._flipped else 30)
    assert kinds == set(dsa.OPERATIONS)


def test_the_protocol_is_that_of_the_published_code():
    protocol = resolved(PROTOCOLS["dsa"], num_images=100, num_classes=10, source_size=32)
    assert (protocol.network, protocol.epochs, protocol.batch_size, protocol.size) == ("convnet-3", 1000, 256, 32)
    assert parameter_count(make_network("convnet-3", num_classes=10, channels=3, size=32, norm="instance")) == 320_010
    rates = [learning_rate_factor(protocol.schedule, 0, epoch, 1000) for epoch in range(1000)]
    assert rates == [1.0] * 500 + [0.1] * 500
    grey = torch.full((4, 3, 32, 32), 128, dtype=torch.uint8)
    plain = replace(protocol, augmentation=("normalise",))
    x, own, _ = augment(grey, plain, normaliser(grey, plain), torch.Generator())
    assert own == 1
    torch.testing.assert_close(
        x[0, :, 0, 0], (128 / 255 - torch.tensor([0.4914, 0.4822, 0.4465])) / torch.tensor([0.2023, 0.1994, 0.2010])
    )
