"""`dmgd train-prior`: a prior of a user's own images, continued where it was interrupted, and used."""

import json
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from source_stand_ins import as_folder, pictures, small_encoder

import dmgd
from dmgd.diffusion.guidance import Guidance
from dmgd.diffusion.noise import SeededNoise
from dmgd.diffusion.sampler import sample
from dmgd.evaluation.checkpoint import Checkpoint, Reached
from dmgd.images import decode
from dmgd.priors import training
from dmgd.priors.codec import AutoencoderCodec
from dmgd.priors.dit import DiTConfig
from dmgd.priors.latent_space import latent_space, open_codec
from dmgd.priors.recipe import Recipe, TrainingConfig, patch_of, usable_size
from dmgd.priors.saving import save_dit
from dmgd.priors.training import Examples, Training, new_network
from dmgd.priors.weights import read_checkpoint
from dmgd.sources.mirror import mirror_share
from dmgd.sources.open import open_source
from dmgd.statistics.encoding import encode_source
from dmgd.statistics.examples import training_examples
from dmgd.workflows import train_prior as workflow

TINY = Recipe(depth=1, heads=1, head_width=16, patch=4, batch=8, learning_rate=3e-3, snr_cap=5.0)
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
CPU = torch.device("cpu")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two classes of 21 small photographs, of which one each is held out; networks are tiny."""
    monkeypatch.setattr(workflow, "recipe_for", lambda *data, on_gpu: TINY)
    return as_folder(tmp_path / "photos", pictures(["cat", "dog"], per_class=21))


def trained(inline, photos, out, *options, code=0):
    return inline("train-prior", "--source", f"folder:{photos}", "--out", out, *options, code=code)


def test_a_prior_for_ones_own_photographs(photos, tmp_path, inline):
    """From the error that says how to make one, to the run that it distils."""
    source, out = f"folder:{photos}", tmp_path / "my-prior"
    said = inline("distill", "--source", source, "--ipc", 1, code=1).stderr
    assert said.splitlines()[-1].endswith(f"or train one: dmgd train-prior --source {source} --out my-prior")

    made = trained(inline, photos, out, "--steps", 3, "--size", 8)
    assert "on 40 images of 2 classes at 8 pixels, with mirror images, for 3 steps on cpu" in made.stderr
    assert made.stdout.startswith(f"trained {out} in 3 steps: loss ")
    assert made.stdout.endswith(f"next: dmgd distill --source {source} --prior {out}\n")
    prior = dmgd.load_prior(out, device="cpu")
    assert ([info.name for info in prior.classes], prior.defaults.guidance_scale) == (["cat", "dog"], 1.5)
    assert decode((out / "samples.png").read_bytes()).shape == (140, 548, 3)  # 2 classes × 8 images
    card = (out / "README.md").read_text()
    for part in ("`dmgd", "cat, dog", "40 training images", "2 more were held out", "--size 8 --steps 3", "own terms"):
        assert part.strip("`") in card
    assert str(tmp_path) not in card + (out / "training.json").read_text() + (out / "dmgd.json").read_text()

    inline("distill", "--source", source, "--prior", out, "--ipc", 1, "--steps", 3, "--out", tmp_path / "run")
    assert dmgd.open_run(tmp_path / "run").complete


@pytest.mark.parametrize("end", [KeyboardInterrupt, OSError], ids=["Ctrl-C", "a kill after the last checkpoint"])
def test_a_training_that_was_interrupted_ends_with_the_same_bytes(end, photos, tmp_path, monkeypatch):
    def train(out):
        return dmgd.train_prior(f"folder:{photos}", out=out, steps=6, size=8, device="cpu")

    whole = train(tmp_path / "whole")
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 1e9 if end is KeyboardInterrupt else 0)
    take_step = Training.take_step

    def disturbed(self, done):
        if self.step == 4:
            raise end
        take_step(self, done)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "take_step", disturbed)
        with pytest.raises(end):
            train(tmp_path / "out")
    assert torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["step"] == 4
    record = train(tmp_path / "out")
    assert record["result"].pop("seconds") >= 0
    assert whole["result"].pop("seconds") >= 0
    assert record["result"] == whole["result"]
    for name in (WEIGHTS, "samples.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "out" / "checkpoint.pt").exists()


def test_a_finished_prior_is_left_as_it_is_and_another_is_not_made_of_it(photos, tmp_path, inline):
    out = tmp_path / "out"
    trained(inline, photos, out, "--steps", 1, "--size", 8)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    again = trained(inline, photos, out, "--steps", 1, "--size", 8, "--json")
    assert again.stderr == f"{out} is finished, and left as it is\n"
    assert json.loads(again.stdout)["result"]["steps"] == 1
    said = trained(inline, photos, out, "--steps", 2, "--size", 8, code=1).stderr
    assert said.startswith(f"error: {out} contains a training with other settings: steps: 1 there, 2 requested; ")
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before

    record = json.loads((out / "training.json").read_text())
    del record["result"], record["checksum"], record["format"]
    workflow.write_record(out, record)
    Image.new("RGB", (20, 20)).save(photos / "cat" / "new.png")
    said = trained(inline, photos, out, "--steps", 1, "--size", 8, code=1).stderr
    assert "are not those that the training" in said.splitlines()[-1]


def test_minutes_end_a_training_and_damage_is_reported(photos, tmp_path, inline):
    (tmp_path / "out").mkdir()
    said = trained(inline, photos, tmp_path / "out", "--minutes", 0.005, "--size", 8, "--no-flip")
    assert "for 0.005 min on cpu" in said.stderr
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["result"]["steps"] >= 1
    del record["result"], record["checksum"], record["format"]
    workflow.write_record(tmp_path / "out", record)
    (tmp_path / "out" / "checkpoint.pt").write_bytes(b"PK\3\4 half a file")
    said = trained(inline, photos, tmp_path / "out", "--minutes", 0.005, "--size", 8, "--no-flip", code=1).stderr
    assert said.splitlines()[-1].endswith("checkpoint.pt is damaged; remove it to start the training anew")


def test_latents_of_an_autoencoder_which_goes_with_the_prior(photos, tmp_path, inline):
    vae = small_encoder(tmp_path / "vae")
    said = trained(inline, photos, tmp_path / "out", "--steps", 2, "--size", 40, "--vae", vae, "--flip").stderr
    assert "on 40 images of 2 classes at 40 pixels, latents 4×20×20, with mirror images, for 2 steps" in said
    shutil.rmtree(vae)
    prior = dmgd.load_prior(shutil.move(tmp_path / "out", tmp_path / "moved"), device="cpu")
    assert (prior.latent_shape, prior.image_size) == ((4, 20, 20), 40)
    assert json.loads((tmp_path / "moved" / "dmgd.json").read_text())["guidance_scale"] == 4
    assert "latents of 4×20×20 (`vae`)" in (tmp_path / "moved" / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "code", "part"),
    [
        (["--size", 64], 2, "size 64 is too large for a prior of pixels; take at most 32, or train in the latents"),
        (["--size", 9], 2, "images of 9 pixels cannot be cut into patches here; take --size 8 or 10"),
        (["--steps", 5, "--minutes", 5], 2, "give either minutes or steps, not both"),
        (["--vae", "nowhere"], 1, "the vae 'nowhere' is not in the cache"),
        (["--minutes", 0], 2, "minutes must be above 0"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line_and_nothing_is_written(
    options, code, part, photos, tmp_path, inline
):
    said = trained(inline, photos, tmp_path / "out", *options, code=code).stderr
    assert part in said.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB.\nSee the documentation"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported at some other call"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
    ids=["CUDA", "CUDA's library", "CPU", "Python"],
)
def test_memory_that_runs_out_is_said_in_one_line(error, photos, tmp_path, inline, monkeypatch):
    def fails(*arguments, **more):
        raise error

    monkeypatch.setattr(workflow, "new_network", fails)
    *_, said = trained(inline, photos, tmp_path / "out", "--steps", 1, code=1).stderr.splitlines()
    assert said.startswith("error: memory ran out")
    assert str(error)[:17] in said
    assert "another --device" in said
    monkeypatch.setattr(AutoencoderCodec, "_normalisation", fails)  # no fault of the autoencoder's files
    with pytest.raises(type(error)):
        open_codec(str(small_encoder(tmp_path / "vae")), 3, CPU)

    # Nor of a checkpoint, which one would remove.
    kept, network = Checkpoint(tmp_path / "some.pt", {}), torch.nn.Linear(1, 1)
    kept.keep(Reached(), network, torch.optim.SGD(network.parameters()))
    with pytest.raises(type(error)):
        kept.restored(SimpleNamespace(load_state_dict=fails), None)
    monkeypatch.setattr(torch, "load", fails)
    of_a_prior = partial(Training.load, SimpleNamespace(device=CPU))
    for read in (of_a_prior, read_checkpoint, lambda path: kept.asked()):
        with pytest.raises(type(error)):
            read(tmp_path / "some.pt")


def test_another_error_of_torch_is_not_taken_for_a_lack_of_memory(photos, tmp_path, inline, monkeypatch):
    def fails(*arguments, **more):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(workflow, "new_network", fails)
    with pytest.raises(RuntimeError, match="mat1"):
        trained(inline, photos, tmp_path / "out", "--steps", 1, code=1)


def test_a_folder_of_something_else_is_not_touched(photos, tmp_path, inline):
    said = trained(inline, photos, photos, code=2).stderr
    assert said == f"error: {photos} exists and is no training's (it holds cat); choose a new or empty --out folder\n"


def test_mirror_images_of_digits_are_no_digits(photos, tmp_path):
    assert mirror_share(open_source("digits")) > 0.9
    assert dmgd.train_prior("digits", steps=1, out=tmp_path / "out", device="cpu")["plan"]["flip"] is False


def test_mirror_images_of_photographs_look_like_photographs(tmp_path):
    found = as_folder(tmp_path / "photos", pictures(["cat", "dog"], per_class=40))
    assert abs(mirror_share(open_source(f"folder:{found}")) - 0.5) < 0.1


def test_held_out_images_are_not_trained_on_nor_are_their_mirror_images(photos):
    space = latent_space(*open_codec(None, 3, CPU), None, 8, CPU)
    latents = encode_source(open_source(f"folder:{photos}"), space, mirror=True, workers=0)
    examples, held = training_examples(latents, space.latent_shape, is_pixels=True)
    assert (len(examples), len(held), held.labels.tolist()) == (80, 4, [0, 0, 1, 1])
    seen = {image.numpy().tobytes() for image in examples.values} | {
        i.flip(2).numpy().tobytes() for i in examples.values
    }
    assert not seen & {image.numpy().tobytes() for image in held.values}


def small_training(steps):
    """On images of 8 pixels that are dark in class 0 and bright in class 1."""
    torch.manual_seed(0)
    labels = torch.arange(64) % 2
    values = (labels[:, None, None, None] * 200 + torch.randint(0, 20, (64, 1, 8, 8))).byte()
    shape = DiTConfig(sample_size=8, patch_size=4, in_channels=1, out_channels=1, width=32, depth=1, num_heads=1,
                      num_classes=2, frequency_divisor=127, norm_eps=1e-5)  # fmt: skip
    recipe = replace(TINY, head_width=32, batch=16, snr_cap=None)
    made = Training(new_network(shape, 0), recipe, Examples(values, labels), Examples(values[:8], labels[:8]), True, 0)
    for step in range(steps):
        made.take_step(step / steps)
    return made


def test_the_classes_are_learned_and_the_folder_is_diffusers_own(tmp_path):
    made = small_training(200)
    assert made.held_out_loss() < 0.1
    save_dit(made.average, tmp_path)
    (tmp_path / "dmgd.json").write_text('{"numerics": "diffusers", "classes": ["dark", "bright"]}')
    prior = dmgd.load_prior(tmp_path, device="cpu")

    trained = made.average.state_dict()
    assert all(torch.equal(one, trained[name].half().float()) for name, one in prior.network.state_dict().items())

    given = prior.condition(prior.match_classes(prior.classes)), prior.null_condition(2)
    noise, schedule = SeededNoise([1, 2], (1, 8, 8)), prior.schedule(20, "ddpm")
    latents, _ = sample(prior.denoise, schedule, noise, lambda step: given, guidance=Guidance(1.5))
    dark, bright = prior.decode(latents).float().mean((1, 2, 3))
    assert dark < bright - 80

    from diffusers import DiTTransformer2DModel

    theirs = DiTTransformer2DModel.from_pretrained(tmp_path / "transformer", low_cpu_mem_usage=False).eval()
    z, t, labels = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999]), torch.tensor([0, 1, 2])
    with torch.no_grad():
        expected = theirs(z, timestep=t, class_labels=labels).sample
        network = prior.network
        assert torch.allclose(network(z, t[:, None].float(), network.label_embedding(labels)), expected, atol=1e-5)


def test_every_image_is_without_its_label_in_all_blocks_at_once():
    """Else the null class, which classifier-free guidance needs, would never be seen as a whole."""
    made, seen = small_training(0), []
    embed = made.network.label_embedding
    made.network.label_embedding = lambda labels: seen.append(labels) or embed(labels)
    for _ in range(40):
        made.take_step(0.0)
    assert 0.05 < (torch.cat(seen) == 2).float().mean() < 0.16


def test_a_loss_that_is_nan_ends_the_training():
    made = small_training(1)
    with torch.no_grad():
        made.network.final.bias.fill_(torch.nan)
    with pytest.raises(dmgd.errors.DmgdError, match="the loss is nan after 1 steps"):
        made.take_step(0.5)


def test_sizes_that_can_be_cut_into_patches():
    assert [patch_of(side) for side in (4, 8, 16, 20, 28, 32, 64)] == [1, 2, 2, 4, 4, 4, 8]
    assert [usable_size(size, 1) for size in (9, 30, 32)] == [8, 28, 32]
    assert usable_size(150, 8) == 128
    assert TrainingConfig().minutes == 20
