"""Extensions: a prior, a method, a layout of sources and one of exports, each a class and an entry in a registry, used
end to end."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

import dmgd
from dmgd.classes.info import ClassInfo
from dmgd.config import setting
from dmgd.diffusion.condition import Condition
from dmgd.diffusion.schedule import respaced, training_alpha_bar
from dmgd.exporters import formats
from dmgd.exporters.example import Example
from dmgd.exporters.folder import write_hashed
from dmgd.images import encode
from dmgd.matching.method import Sampled
from dmgd.matching.methods import METHODS
from dmgd.priors.codec import PixelCodec
from dmgd.priors.defaults import PriorDefaults
from dmgd.priors.known import FAMILIES, Family
from dmgd.priors.prior import Prior, PriorIdentity
from dmgd.sources import layouts
from dmgd.sources.source import SourceImage, fingerprint_files

MADE = "--ipc 1 --prior flat --method lighten --batch-size 5 --amount 0.2 --steps 2"
DIGITS = tuple(ClassInfo(str(digit)) for digit in range(10))


class ToyLayout:
    """Data in one text file: a line for each image, "split label file"."""

    has_test = True

    def __init__(self, location):
        self.location, self.root = location, Path(location).parent
        self.lines = [line.split() for line in Path(location).read_text().splitlines()]

    def labels(self):
        return sorted({label for split, label, _ in self.lines if split == "train"})

    def images(self, split, skip=()):
        for own, label, file in self.lines:
            if own == split and label not in skip:
                yield SourceImage(self.root / file, label, file)

    def remarks(self, split):
        return []

    def fingerprint(self, split):
        return fingerprint_files(self.root, [Path(self.location)])


def write_toy(folder, examples, description):
    """One file: a line of JSON for each image, its bytes as text."""
    lines = [
        json.dumps([example.label, example.metadata, base64.b64encode(example.data).decode()]) for example in examples
    ]
    return [write_hashed(folder, "images.toy", "\n".join(lines).encode(), images=len(lines))]


def read_toy(folder, index):
    for line in (folder / "images.toy").read_text().splitlines():
        label, metadata, image = json.loads(line)
        yield Example(label, metadata, base64.b64decode(image))


class FlatPrior(Prior):
    """Predicts one grey level per class, whatever the noise; its own schedule, two embeddings and a mask."""

    latent_shape = (1, 8, 8)

    def schedule(self, steps, solver):
        return respaced(training_alpha_bar("squaredcos_cap_v2", 500), steps, solver)

    def denoise(self, z, step, condition):
        level, pooled, mask = condition.embeddings["level"], condition.embeddings["pooled"], condition.fixed["mask"]
        assert len(z) == len(level) == len(pooled) == len(mask)
        assert step.timestep < 500
        return level[:, :, None, None].expand_as(z), None

    def condition(self, classes):
        level = torch.tensor([int(info.name) for info in classes])[:, None] / 5 - 1
        return Condition({"level": level, "pooled": torch.ones(len(level))}, {"mask": torch.ones(len(level), 1).bool()})

    def null_condition(self, count):
        return Condition(
            {"level": torch.zeros(count, 1), "pooled": torch.zeros(count)}, {"mask": torch.zeros(count, 1).bool()}
        )


def load_flat(spec, device):
    return FlatPrior(
        spec=spec,
        identity=PriorIdentity("flat", None, "0" * 64, "toy"),
        classes=DIGITS,
        defaults=PriorDefaults(guidance_scale=1.5),
        codec=PixelCodec(1, device),
        device=device,
    )


@dataclass(frozen=True, kw_only=True)
class Lighten(Sampled):
    """Makes every image a little lighter at every step."""

    name: ClassVar[str] = "lighten"

    amount: float = setting(0.1, "How much lighter.", at_least=0)

    def guide(self, statistics, finished, images):
        return lambda step, x0, sigma: (x0 + self.amount, None)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(FAMILIES, "flat", Family(load_flat, lambda spec: DIGITS))
    monkeypatch.setitem(METHODS, "lighten", Lighten)
    monkeypatch.setitem(layouts.KINDS, "toy", layouts.Kind(ToyLayout, argument="FILE"))
    monkeypatch.setitem(formats.LAYOUTS, "toy", formats.Layout(write_toy, read_toy))


@pytest.fixture
def data(tmp_path):
    """Ten images of 8×8 of each digit for either split, bright where the digit is high."""
    rng, lines = np.random.default_rng(0), []
    (tmp_path / "toys").mkdir()
    for number in range(200):
        split, label = ("train", "test")[number % 2], number // 2 % 10
        pixels = rng.normal(25 * label, 10, (8, 8, 1)).clip(0, 255).astype(np.uint8)
        (tmp_path / "toys" / f"{number}.png").write_bytes(encode(pixels))
        lines.append(f"{split} {label} {number}.png")
    (tmp_path / "toys" / "list.txt").write_text("\n".join(lines))
    return tmp_path / "toys" / "list.txt"


def test_everything_from_end_to_end(registered, data, tmp_path, inline):
    run, out = tmp_path / "run", tmp_path / "out"
    inline("distill", "--source", f"toy:{data}", *MADE.split(), "--out", run)
    greys = [dmgd.open_run(run).pixels(record).mean() for record in dmgd.open_run(run).records()]
    guided = [1.5 * (level / 5 - 1) + 0.2 for level in range(10)]  # the null level is 0
    assert greys == pytest.approx([127.5 * (1 + max(-1, min(1, level))) for level in guided], abs=1)
    inline("export", run, "--format", "toy", "--out", out)
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "images.toy", "index.json"]
    card = (out / "README.md").read_text()
    (command,) = (line for line in card.splitlines() if line.startswith("dmgd distill"))
    assert command.partition("  #")[0] == f"dmgd distill --source toy:PATH/list.txt {MADE}"
    assert str(tmp_path) not in card + (out / "index.json").read_text()
    quick = ("--epochs", 2, "--repeats", 1, "--against", "random", "--json")
    of_run = json.loads(inline("evaluate", run, *quick).stdout)
    of_export = json.loads(inline("evaluate", out, "--source", f"toy:{data}", *quick).stdout)
    assert of_run["settings"]["source"]["test_images"] == 100
    for one, other in zip(of_run["scores"], of_export["scores"], strict=True):
        assert one["top1_by_seed"] == other["top1_by_seed"]
    inline("verify", run, "--regenerate", 2)
    inline("verify", out, "--regenerate", 2, "--source", f"toy:{data}")
    (out / "images.toy").write_text((out / "images.toy").read_text().replace("[3, {", "[4, {"))
    assert "images.toy: was changed" in inline("verify", out, code=1).stdout
    assert "images.toy: was changed" in inline("evaluate", out, "--source", f"toy:{data}", *quick, code=1).stderr


def test_every_method_samples_a_prior_of_another_kind(registered, tmp_path, inline):
    for method in [name for name, kind in METHODS.items() if issubclass(kind, Sampled)]:
        asked = ("--source", "digits", "--prior", "flat", "--method", method, "--steps", 10, "--ipc", 1)
        said = inline("distill", *asked, "--out", tmp_path / method, code=2 if method == "dmgd-released" else 0)
        assert ("blends labels by DiT's timesteps" in said.stderr) == (method == "dmgd-released")


def test_a_foreign_set_is_read_by_the_layout_that_recognises_it(data, monkeypatch, inline):
    kind = layouts.Kind(ToyLayout, recognises=lambda location: location.endswith(".txt"))
    monkeypatch.setitem(layouts.KINDS, "toy", kind)
    quick = ("--epochs", 2, "--repeats", 1, "--against", "", "--json")
    said = json.loads(inline("evaluate", data, "--source", f"toy:{data}", *quick).stdout)
    assert said["settings"]["set"]["images_per_class"] == [10] * 10


def test_registered_names_are_in_the_help_and_in_error_messages(registered, tmp_path, inline):
    said = inline("distill", "--help").stdout
    assert all(name in said for name in ("toy:FILE", "flat", "lighten", "--amount", "How much lighter."))
    refusals = {"--prior": ("falt", "'flat'"), "--method": ("lihgten", "'lighten'"), "--amount": (-1, "at least 0")}
    for option, (wrong, right) in refusals.items():
        given = {"--prior": "flat", "--method": "lighten", option: wrong}
        parts = [part for pair in given.items() for part in pair]
        assert right in inline("distill", "--source", "digits", *parts, "--out", tmp_path / "no", code=2).stderr
    refused = inline("distill", "--source", "digits", "--amount", 1, "--out", tmp_path / "no", code=2).stderr
    assert "amount has no effect: dmgd has no such setting; it is a setting of lighten" in refused
    assert "toy" in inline("export", "--help").stdout
    refused = inline("distill", "--source", "tyo:x", "--out", tmp_path / "run", code=2).stderr
    assert "unknown source 'tyo:x'" in refused
    assert "toy:FILE" in refused
    inline("distill", "--source", "digits", "--ipc", 1, "--method", "dit", "--steps", 2, "--out", tmp_path / "run")
    refused = inline("export", tmp_path / "run", "--format", "tyo", "--out", tmp_path / "out", code=2).stderr
    assert "did you mean 'toy'" in refused
    assert "tensors, toy" in refused


def test_without_them_nothing_is_called_toy(data, inline):
    said = inline("distill", "--help").stdout + inline("export", "--help").stdout
    assert not any(name in said for name in ("toy", "flat", "lighten", "--amount"))
    assert "unknown source" in inline("distill", "--source", f"toy:{data}", "--out", data.parent / "x", code=2).stderr
