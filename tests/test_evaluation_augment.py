"""Batched augmentation against per-image reference code, and the schedules against published ones."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dmgd.evaluation import augmentation as ops
from dmgd.evaluation.augmentation import augment, normaliser
from dmgd.evaluation.protocols import PROTOCOLS, epochs_by_ipc, learning_rate_factor, validated_epochs
from dmgd.evaluation.steps import epoch_batches, soft_loss


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)


@pytest.fixture
def images(generator):
    return torch.rand((6, 3, 20, 24), generator=generator)


def test_resized_crop_is_interpolation_of_the_crop(images, generator):
    boxes = ops.draw_boxes(6, 20, 24, generator)
    for image, (top, left, h, w), found in zip(
        images, boxes.tolist(), ops.resized_crop(images, boxes, 16), strict=True
    ):
        crop = image[None, :, top : top + h, left : left + w]
        plain = F.interpolate(crop, (16, 16), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(found, plain, atol=1e-5, rtol=0)


def test_crop_boxes_lie_inside_and_have_the_drawn_area(generator):
    top, left, h, w = ops.draw_boxes(4000, 100, 100, generator).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= 100).all()
    assert (left + w <= 100).all()
    area, ratio = h * w / 1e4, w / h
    assert 0.48 < area.min() < 0.53
    assert area.max() <= 1
    assert ratio.min() >= 0.73
    assert ratio.max() <= 1.37
    assert (left == 100 - w).any()  # the last position is drawn, too


def test_flip(images):
    flipped = torch.tensor([True, False, True, False, False, True])
    for image, turn, found in zip(images, flipped, ops.flip(images, flipped), strict=True):
        assert torch.equal(found, torch.from_numpy(np.ascontiguousarray(image.numpy()[:, :, ::-1])) if turn else image)


def test_jitter(images, generator):
    factors, order = ops.draw_jitter(6, generator)
    assert (factors - 1).abs().max() <= 0.4
    assert sorted(order[0].tolist()) == [0, 1, 2]
    for image, own, steps, found in zip(images, factors, order, ops.jitter(images, factors, order), strict=True):
        plain = image.double()
        for step in steps.tolist():
            factor = float(own[step])
            grey = 0.299 * plain[0] + 0.587 * plain[1] + 0.114 * plain[2]
            other = {0: torch.zeros_like(grey), 1: grey.mean().expand_as(grey), 2: grey}[step]
            plain = factor * plain + (1 - factor) * other
        torch.testing.assert_close(found.double(), plain, atol=1e-6, rtol=0)


def test_lighting(images, generator):
    alpha = ops.draw_lighting(6, generator)
    values, vectors = np.array(ops.LIGHTING_VALUES), np.array(ops.LIGHTING_VECTORS)
    for image, own, found in zip(images, alpha, ops.lighting(images, alpha), strict=True):
        shift = vectors @ (own.numpy() * values)
        np.testing.assert_allclose(found.numpy(), image.numpy() + shift[:, None, None], atol=1e-6)


def test_patches(images, generator):
    order = ops.draw_patches(6, generator)
    for image, own, found in zip(images, order.tolist(), ops.shuffle_patches(images, order), strict=True):
        for position, patch in enumerate(own):
            there = found[:, position // 2 * 10 : position // 2 * 10 + 10, position % 2 * 12 : position % 2 * 12 + 12]
            assert torch.equal(there, image[:, patch // 2 * 10 : patch // 2 * 10 + 10, patch % 2 * 12 :][:, :, :12])


def test_cutmix(images, generator):
    for _ in range(20):
        partners, box = ops.draw_cutmix(6, 20, 24, generator)
        found, own = ops.cutmix(images, partners, box)
        top, left, bottom, right = box
        plain, kept = images.clone(), 0
        for i in range(6):
            for y in range(20):
                for x in range(24):
                    if top <= y < bottom and left <= x < right:
                        plain[i, :, y, x] = images[partners[i], :, y, x]
                    else:
                        kept += 1
        assert torch.equal(found, plain)
        assert own == pytest.approx(kept / (6 * 20 * 24))


@pytest.mark.parametrize("name", ["quick", "minimax-sgd", "rded-soft"])
def test_a_step_is_a_function_of_its_seed(name):
    protocol = replace(PROTOCOLS[name], size=16)
    pixels = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    normalise = normaliser(pixels, protocol)
    drawn = [augment(pixels, protocol, normalise, torch.Generator().manual_seed(seed))[0] for seed in (3, 3, 4)]
    assert drawn[0].shape == (5, 3, 16, 16)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_schedules():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], 1.0)
    plain = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2 * 1000 // 3, 5 * 1000 // 6], gamma=0.2)
    for epoch in range(1000):
        assert learning_rate_factor("steps", 0, epoch, 1000) == pytest.approx(plain.get_last_lr()[0])
        optimizer.step()
        plain.step()
    half = [learning_rate_factor("half-cosine", 0, epoch, 300) for epoch in (0, 150, 300)]
    assert half == pytest.approx([1, 0.5 * (1 + math.cos(math.pi / 4)), 0.5])
    assert learning_rate_factor("cosine", 1, 0, 1) == pytest.approx(0)
    assert [epochs_by_ipc(ipc, 10) for ipc in (1, 10, 20, 100, 500, 1300)] == [3000, 2000, 1500, 1000, 500, 300]
    assert epochs_by_ipc(10, 100) == 1333


def test_the_best_epoch_is_looked_for_only_where_papers_report_it():
    """Elsewhere all tests together take a fifth of the work, and a curve as many test images for every set."""
    soft, minimax, quick = (
        replace(PROTOCOLS[name], epochs=epochs)
        for name, epochs in (("rded-soft", 300), ("minimax-sgd", 2000), ("quick", 250))
    )
    assert validated_epochs(soft, 10, 50_000) == [250, 260, 270, 280, 290, 300]
    assert len(validated_epochs(minimax, 10, 50_000)) == 100
    # 250 epochs of 128 images cost 96,000 passes: a fifth of that is for the test at the end and 18 others.
    assert validated_epochs(quick, 128, 10_000) == [*range(14, 250, 14), 250]
    assert len(validated_epochs(quick, 128, 540)) == 36
    assert validated_epochs(quick, 128, 100_000) == [250]


def test_epoch_batches():
    batches = epoch_batches(10, 4, seed=0, epoch=0, full=False)
    assert [len(b) for b in batches] == [4, 4, 2]
    assert sorted(torch.cat(batches).tolist()) == list(range(10))
    assert [len(b) for b in epoch_batches(3, 8, seed=0, epoch=0, full=True)] == [8]


def test_soft_loss_is_the_mean_divergence():
    a, b = torch.randn(4, 5), torch.randn(4, 5)
    p, q = torch.softmax(b / 20, 1), torch.softmax(a / 20, 1)
    assert float(soft_loss(a, b, 20)) == pytest.approx(float((p * (p / q).log()).sum(1).mean()), abs=1e-6)
