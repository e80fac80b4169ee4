"""Training on a distilled set: dmgd's batched loop against the plain loop of existing code, for one network and for
five seeds at once; and with --cifar10 the protocol `quick` on 100 images with 10,000 test images.

The plain loop decodes and augments each PNG separately with PIL, in a DataLoader with two workers; dmgd keeps the set
as one tensor and augments batches ahead. Same images, network, optimiser, schedule, epochs and seeds; the ways
alternate, so that other load on the machine affects all.

    python benchmarks/evaluate_speed.py FOLDER     # with train-*.parquet and val-*.parquet, columns image and label
"""

import argparse
import io
import math
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch.utils.data import DataLoader, Dataset

from dmgd.distribution.engine import SerialEngine
from dmgd.evaluation import augmentation as ops
from dmgd.evaluation.augmentation import IMAGENET_MEAN, IMAGENET_STD, augment, normaliser
from dmgd.evaluation.imageset import ImageSet, stack_images
from dmgd.evaluation.inputs import read_raw_set
from dmgd.evaluation.protocols import PROTOCOLS, Protocol, learning_rate_factor, resolved
from dmgd.evaluation.scores import Wanted, all_trainings
from dmgd.evaluation.steps import epoch_batches, hard_loss
from dmgd.evaluation.train import Training, make_optimizer, seeded_network, set_learning_rate, train
from dmgd.evaluation.training_work import TrainingWork
from dmgd.evaluation.validation import confusion_on, top1
from dmgd.images import to_square
from dmgd.progress import SILENT

FIVE = 5


class PlainDataset(Dataset):
    """PNG files in memory, decoded and augmented one by one with PIL."""

    def __init__(self, data: ImageSet):
        self.size = data.images.shape[-1]
        self.labels = data.labels.tolist()
        self.files = []
        for pixels in data.images.permute(0, 2, 3, 1).numpy():
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            self.files.append(buffer.getvalue())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        image = self.crop(Image.open(io.BytesIO(self.files[index])).convert("RGB"))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
        random.shuffle(enhancers)
        for enhancer in enhancers:
            image = enhancer(image).enhance(random.uniform(0.6, 1.4))
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        shift = torch.tensor(ops.LIGHTING_VECTORS) @ (torch.randn(3) * 0.1 * torch.tensor(ops.LIGHTING_VALUES))
        x = x + shift[:, None, None]
        x = (x - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
        return x, self.labels[index]

    def crop(self, image: Image.Image) -> Image.Image:
        """torchvision's RandomResizedCrop with scale 0.5 to 1."""
        side = image.width
        for _ in range(10):
            area = side * side * random.uniform(0.5, 1)
            ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if w <= side and h <= side:
                left, top = random.randint(0, side - w), random.randint(0, side - h)
                return image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))
        return image


def plain_train(data: ImageSet, test: ImageSet, protocol: Protocol, seed: int) -> tuple[float, float]:
    """Top-1 in % and seconds of the plain loop."""
    random.seed(seed)
    torch.manual_seed(seed)
    started = time.perf_counter()
    network = seeded_network(protocol, data, seed)
    optimizer = make_optimizer(protocol, network)
    loader = DataLoader(PlainDataset(data), protocol.batch_size, shuffle=True, num_workers=2, persistent_workers=True)
    for epoch in range(protocol.epochs):
        set_learning_rate(
            optimizer, protocol.learning_rate * learning_rate_factor(protocol.schedule, 0, epoch, protocol.epochs)
        )
        for images, labels in loader:
            partners, box = ops.draw_cutmix(len(images), *images.shape[2:], torch.default_generator)
            mixed, own = ops.cutmix(images, partners, box)
            loss = hard_loss(network(mixed), labels, labels[partners], own)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    reached = top1(confusion_on(network, test, normaliser(data.images, protocol), "cpu"))
    return reached, time.perf_counter() - started


def feeding(data: ImageSet, protocol: Protocol, epochs: int) -> dict[str, float]:
    """Images per second of decoding and augmentation alone, without a network."""
    loader = DataLoader(PlainDataset(data), protocol.batch_size, shuffle=True, num_workers=2, persistent_workers=True)
    list(loader)  # the workers have started
    started = time.perf_counter()
    for _ in range(epochs):
        for images, _ in loader:
            ops.cutmix(images, *ops.draw_cutmix(len(images), *images.shape[2:], torch.default_generator))
    plain = time.perf_counter() - started
    normalise = normaliser(data.images, protocol)
    started = time.perf_counter()
    for epoch in range(epochs):
        for chosen in epoch_batches(len(data), protocol.batch_size, 0, epoch, full=False):
            augment(data.images[chosen], protocol, normalise, torch.Generator().manual_seed(epoch))
    own = time.perf_counter() - started
    return {"plain loop": len(data) * epochs / plain, "dmgd": len(data) * epochs / own}


def load(files: list[Path], size: int, per_class: int) -> ImageSet:
    """The first `per_class` images of every class."""
    pixels, labels, counts = [], [], {}
    for file in files:
        found = read_raw_set(file)
        for image, label in zip(found.images, found.labels, strict=True):
            counts[label] = counts.get(label, 0) + 1
            if counts[label] <= per_class:
                pixels.append(to_square(image, size, 3))
                labels.append(label)
    return stack_images(files[0].stem, pixels, labels, found.classes)


def train_at_once(data: ImageSet, test: ImageSet, protocol: Protocol, seeds: range) -> tuple[list[Training], float]:
    """The trainings with these seeds, as `dmgd evaluate` does them, and the seconds of all together."""
    started = time.perf_counter()
    wanted = [Wanted(0, data, protocol, tuple(seeds))]
    trained = all_trainings(wanted, TrainingWork(test, None, "cpu"), None, SerialEngine(), SILENT)
    return [trained[0, seed] for seed in seeds], time.perf_counter() - started


def quick(folder: Path) -> None:
    """Prints how long `quick` takes for one network on ten images of each class of CIFAR-10."""
    data = load(sorted(folder.glob("train-*.parquet")), 32, per_class=10)
    test = load(sorted(folder.glob("test-*.parquet")), 32, per_class=1000)
    protocol = resolved(PROTOCOLS["quick"], num_images=len(data), num_classes=10, source_size=32)
    done = train(data, test, protocol, 0)
    print(f"quick, {protocol.network}, {protocol.epochs} epochs of {len(data)} images, {len(test)} test images: "
          f"{done.seconds:.1f} s, {len(done.curve)} validations, top-1 {done.last:.1f} %")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="convnet-4-w16")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--cifar10", type=Path, help="a folder with CIFAR-10 as a Hugging Face dataset")
    chosen = parser.parse_args()
    data = load(sorted(chosen.folder.glob("train-*.parquet")), chosen.size, per_class=10)
    test = load(sorted(chosen.folder.glob("val-*.parquet")), chosen.size, per_class=50)
    protocol = replace(
        PROTOCOLS["igd-adamw"],
        network=chosen.network,
        epochs=chosen.epochs,
        size=chosen.size,
        resize=chosen.size,
        validate_every=chosen.epochs,
    )
    print(f"{len(data)} images of {chosen.size}×{chosen.size}, {chosen.network}, {chosen.epochs} epochs, "
          f"{len(test)} test images, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    fed = feeding(data, protocol, epochs=10)
    print(f"feeding alone: plain loop {fed['plain loop']:.0f} images/s, dmgd {fed['dmgd']:.0f}, "
          f"ratio {fed['dmgd'] / fed['plain loop']:.1f}")  # fmt: skip
    ways: dict[str, list[tuple[float, float]]] = {"plain loop": [], "dmgd": []}
    for seed in range(chosen.repeats):
        ways["plain loop"].append(plain_train(data, test, protocol, seed))
        training = train(data, test, protocol, seed)
        ways["dmgd"].append((training.last, training.seconds))
    several, seconds = train_at_once(data, test, protocol, range(FIVE))
    ways["five seeds"] = [(training.last, seconds / FIVE) for training in several]
    rates = {}
    for name, results in ways.items():
        accuracy, seconds = np.array(results).T
        rates[name] = len(data) * chosen.epochs / float(np.median(seconds))
        print(f"{name:10}  {rates[name]:7.0f} images/s   top-1 {accuracy.mean():.1f} ± {accuracy.std():.1f} %   "
              f"ratio {rates[name] / rates['plain loop']:.2f}")  # fmt: skip
    if chosen.cifar10:
        quick(chosen.cifar10)


if __name__ == "__main__":
    main()
