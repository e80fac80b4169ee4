"""Text-to-image priors against diffusers' own pipelines, and the whole way of a user with a few photographs."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from pipeline_reference import is_flow, reference_x0, signal_and_noise, to_scheduler
from tiny_pipelines import FAMILIES, load, make_pipeline, save_lora

import dmgd
from dmgd.classes.info import ClassInfo
from dmgd.diffusion.guidance import Guidance
from dmgd.errors import UsageError
from dmgd.generation.sampling import label_noise
from dmgd.priors.load import load_prior
from dmgd.priors.pipelines import PIPELINES
from dmgd.priors.prompts import Prompts

TENCH, CHURCH = ClassInfo("tench, Tinca tinca", "n01440764"), ClassInfo("church")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder of the tiny pipeline of a family, made once."""
    made = {}

    def folder(family):
        if family not in made:
            made[family] = make_pipeline(family, tmp_path_factory.mktemp("pipelines") / family)
        return made[family]

    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of a few noisy photographs, with a test split."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "photos"
    for split, images in (("train", 4), ("test", 2)):
        for level, name in enumerate(("tench, Tinca tinca", "church", "cls_a")):
            (root / split / name).mkdir(parents=True)
            for number in range(images):
                pixels = rng.normal(60 + 60 * level, 30, (40, 36, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.jpg")
    return root


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("negative", [None, "blurred"])
def test_denoising_equals_the_pipelines_own(folders, family, negative):
    prior = load_prior(folders(family), prompt="a picture of a {name}", negative_prompt=negative, device="cpu")
    pipe, noise = load(folders(family)), torch.Generator().manual_seed(0)
    for step in prior.schedule(12, "ddpm")[1::4]:
        # Of the pipeline's own α and σ: its table is a cumulative product in single precision.
        step = replace(step, alpha_bar=signal_and_noise(pipe, step.timestep)[0] ** 2)
        z = torch.randn(2, *prior.latent_shape, generator=noise)
        conditions = prior.condition([TENCH, CHURCH]), prior.null_condition(2)
        found, _ = Guidance(4.0).denoised(prior.denoise, z, step, *conditions)
        for row, name in enumerate(("tench", "church")):
            latents = to_scheduler(pipe, z[row : row + 1], step.timestep)
            expected = reference_x0(pipe, latents, step.timestep, f"a picture of a {name}", negative, 4.0)
            # Random networks amplify the rounding of single precision, in which Euler's scheduler scales latents to and
            # fro: up to 2.5e-5, on processors without AVX-512.
            assert (found[row] - expected).abs().max() < 5e-5 * max(1, expected.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_schedule_size_and_defaults_are_the_pipelines(folders, family):
    prior, pipe = load_prior(folders(family), device="cpu"), load(folders(family))
    for step in prior.schedule(9, "ddpm"):
        assert (step.alpha, step.sigma) == pytest.approx(signal_and_noise(pipe, step.timestep), abs=2e-6)
    assert (prior.schedule(2, "ddpm")[-1].alpha == 0) == is_flow(pipe)
    assert prior.defaults == PIPELINES[type(pipe).__name__].defaults
    images = torch.randint(0, 256, (1, prior.image_size, prior.image_size, 3), dtype=torch.uint8)
    assert prior.encode(images).shape == (1, *prior.latent_shape)
    assert prior.decode(torch.randn(1, *prior.latent_shape)).shape == images.shape


@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_way(folders, family, photos, tmp_path, inline):
    asked = ("--source", f"folder:{photos}", "--prior", folders(family), "--k", 2)
    inline("fit-stats", *asked, "--workers", 0, "--out", tmp_path / "stats.safetensors")
    asked = (*asked, "--ipc", 2, "--steps", 4, "--stats", tmp_path / "stats.safetensors", "--out", tmp_path / "run")
    said = inline("distill", *asked).stderr
    assert "prompts: 'a photo of a church', 'a photo of a cls a', 'a photo of a tench'" in said
    assert "1 of 3 classes have names that are no words, of which the prompts are 'a photo of a cls a'" in said
    assert "--prompts FILE" in said
    inline("export", tmp_path / "run", "--format", "webdataset", "--out", tmp_path / "export")
    scores = json.loads(inline("evaluate", tmp_path / "run", "--network", "probe", "--repeats", 1, "--json").stdout)
    assert scores["settings"]["source"]["test_images"] == 6
    assert "2 with equal pixels" in inline("verify", tmp_path / "run", "--regenerate", 2).stdout
    inline("verify", tmp_path / "export", "--regenerate", 1, "--source", f"folder:{photos}", "--prior", folders(family))


def test_prompts_of_single_classes(folders, photos, tmp_path, inline):
    (tmp_path / "prompts.csv").write_text("cls_a,a photo of a garden shed\nchurch,an old church\n")
    asked = ("--source", f"folder:{photos}", "--prior", folders("sd15"), "--method", "dit", "--steps", 2, "--ipc", 1)
    said = inline("distill", *asked, "--prompts", tmp_path / "prompts.csv", "--out", tmp_path / "run").stderr
    assert "prompts: 'an old church', 'a photo of a garden shed', 'a photo of a tench'" in said
    assert "no words" not in said
    (tmp_path / "prompts.csv").write_text("cls_a,a photo of a garden shed\nchurch,a new church\n")
    said = inline("distill", *asked, "--prompts", tmp_path / "prompts.csv", "--out", tmp_path / "run", code=1).stderr
    assert "an old church" in said.splitlines()[-1]  # another run: it is refused
    (tmp_path / "prompts.csv").write_text("chruch,an old church\n")
    said = inline("distill", *asked, "--prompts", tmp_path / "prompts.csv", "--out", tmp_path / "two", code=2).stderr
    assert "the file of prompts has one for 'chruch', which is no class of the source" in said
    said = inline("distill", *asked, "--prompt", "a photo", "--out", tmp_path / "two", code=2).stderr
    assert "the prompt 'a photo' is the same for all classes; put {name} in the name's place" in said
    said = inline("distill", "--source", "digits", "--prompt", "{name}", "--out", tmp_path / "two", code=2).stderr
    assert "--prompt has no effect: the prior digits is not told classes by prompts" in said


@pytest.mark.parametrize(
    ("name", "clear"),
    [("0001", False), ("cls_a", False), ("class 3", False), ("church", True), ("Boeing 747", True), ("狗", False),
     ("柴犬", True), ("n01440764", False), ("ox", True), ("cat", True)],
)  # fmt: skip
def test_names_that_are_no_words(name, clear):
    assert Prompts().unclear([ClassInfo(name)]) == ([] if clear else [f"a photo of a {name.replace('_', ' ')}"])


def test_text_encoders_are_loaded_once_and_freed(folders, monkeypatch):
    from dmgd.priors.pipeline_parts import PipelineParts

    loaded, load = [], PipelineParts._loaded
    monkeypatch.setattr(PipelineParts, "_loaded", lambda self, part: loaded.append(part) or load(self, part))
    prior = load_prior(folders("sd3"), device="cpu")
    assert loaded == ["transformer"]
    prior.prepare([TENCH, CHURCH])
    prior.condition([CHURCH, TENCH, CHURCH])
    prior.null_condition(4)
    assert loaded == ["transformer", "text_encoder", "text_encoder_2", "text_encoder_3"]


def test_a_blend_of_prompts_reads_the_tokens_of_both_and_noise_is_in_the_embeddings_unit(folders):
    prior = load_prior(folders("pixart-sigma"), prompt="{name}", device="cpu")
    one, other = prior.condition([ClassInfo("ox")]), prior.condition([ClassInfo("an orange tabby cat")])
    masks = [condition.fixed["mask"].sum() for condition in (one, other)]
    assert masks[0] < masks[1]
    blended = one.blend(torch.add, other)
    assert blended.fixed["mask"].sum() == masks[1]
    noise = label_noise([1], one, uniform=False)(prior.schedule(2, "ddpm")[0])
    deviation = one.embeddings["prompt"][0, : masks[0]].std().item()
    assert noise.embeddings["prompt"].std().item() == pytest.approx(deviation, rel=0.05)
    assert not noise.fixed


def test_a_lora_is_fused_and_recorded(folders, tmp_path):
    save_lora("sd15", tmp_path / "lora")
    plain, tuned = (load_prior(folders("sd15"), lora=lora, device="cpu") for lora in (None, str(tmp_path / "lora")))
    z, step = torch.randn(1, *plain.latent_shape), plain.schedule(4, "ddpm")[2]
    one, other = (prior.denoise(z, step, prior.condition([CHURCH]))[0] for prior in (plain, tuned))
    assert (one - other).abs().max() > 0.01 * one.abs().max()
    assert plain.settings()["lora"] is None
    assert len(tuned.settings()["lora"]) == 64
    with pytest.raises(UsageError, match="has no pytorch_lora_weights"):
        load_prior(folders("sd15"), lora=str(tmp_path), device="cpu")
    with pytest.raises(UsageError, match="--lora has no effect: diffusers loads none into a PixArtSigmaPipeline"):
        load_prior(folders("pixart-sigma"), lora=str(tmp_path / "lora"), device="cpu")


@pytest.mark.parametrize("file", ["tokenizer/tokenizer.json", "text_encoder/config.json"])
def test_what_prompts_are_encoded_with_is_recorded(folders, tmp_path, file):
    folder = shutil.copytree(folders("sd15"), tmp_path / "copy")
    before = load_prior(folders("sd15"), device="cpu").settings()
    assert load_prior(folder, device="cpu").settings() == before
    (folder / file).write_text((folder / file).read_text() + "\n")
    after = load_prior(folder, device="cpu").settings()
    assert {key for key in before if before[key] != after[key]} == {"encoding"}


def test_a_lora_or_an_autoencoder_of_another_family_is_refused(folders, photos, tmp_path, inline):
    asked = ("distill", "--source", f"folder:{photos}", "--prior", folders("sd15"), "--out", tmp_path / "run")
    save_lora("sd3", tmp_path / "lora")
    last = inline(*asked, "--lora", tmp_path / "lora", code=1).stderr.splitlines()[-1]
    assert "does not fit this pipeline: it changes nothing of a StableDiffusionPipeline" in last
    last = inline(*asked, "--vae", folders("sd3") / "vae", code=2).stderr.splitlines()[-1]
    assert "gives latents of 16 channels" in last
    assert "works in 4" in last


def test_a_moved_pipeline_is_verified_with_the_settings_of_the_run(folders, photos, tmp_path, inline):
    (tmp_path / "own.csv").write_text("cls_a,a garden shed\n")
    save_lora("sd15", tmp_path / "lora")
    own = ("--lora", tmp_path / "lora", "--prompts", tmp_path / "own.csv")
    asked = ("--prompt", "the {name}", "--negative-prompt", "blur", "--size", 20, "--method", "dit", "--steps", 2)
    asked = ("--source", f"folder:{photos}", "--prior", folders("sd15"), "--ipc", 1, *asked, *own)
    inline("distill", *asked, "--out", tmp_path / "run")
    moved = shutil.copytree(folders("sd15"), tmp_path / "moved")
    said = inline("verify", tmp_path / "run", "--regenerate", 1, "--prior", moved).stdout
    assert "1 with equal pixels" in said
    inline("export", tmp_path / "run", "--out", tmp_path / "export", "--format", "imagefolder")
    there = ("verify", tmp_path / "export", "--regenerate", 1, "--source", f"folder:{photos}", "--prior", moved)
    assert "--lora" in inline(*there, code=2).stderr
    assert "1 with equal pixels" in inline(*there, *own).stdout
    asked = ("--network", "probe", "--repeats", 1, "--source", f"folder:{photos}", "--prior", moved)
    assert "top-1 %" in inline("evaluate", tmp_path / "export", *asked, *own).stdout


def test_wrong_prompts_are_refused_before_anything_is_downloaded_or_encoded(photos, tmp_path, inline):
    asked = ("distill", "--source", f"folder:{photos}", "--prior", "sd15", "--out", tmp_path / "run")
    file = tmp_path / "own.json"
    for content, said in (
        ('{"chruch": "an old church"}', "has one for 'chruch', which is no class of the source"),
        ('{"church": " "}', "own.json has the prompt ' '; expected a text"),
        ('{"church": "\\ud800"}', "expected a text in UTF-8"),
    ):
        file.write_text(content)
        assert said in inline(*asked, "--prompts", file, code=2).stderr
    assert "is the same for all classes" in inline(*asked, "--prompt", "a photo", code=2).stderr
    assert "the prompt ''" in inline(*asked, "--prompt", "", code=2).stderr


def test_long_prompts_are_read_and_what_is_cut_is_said_once(folders, photos, tmp_path, inline):
    (tmp_path / "own.csv").write_text(f"church,{'an old church ' * 100}\n")
    asked = ("--source", f"folder:{photos}", "--prior", folders("sd15"), "--method", "dit", "--steps", 2, "--ipc", 1)
    asked = (*asked, "--prompt", f"{{name}} {'x' * 2000}", "--prompts", tmp_path / "own.csv", "--out", tmp_path / "run")
    said = inline("distill", *asked).stderr
    assert said.count(" are cut after 77 tokens") == 1
    assert "3 of 4 prompts are cut after 77 tokens: 'an old church" in said
    assert max(map(len, said.splitlines())) < 400


def test_other_sizes(folders):
    prior = load_prior(folders("sdxl"), size=32, device="cpu")
    assert (prior.image_size, prior.latent_shape) == (32, (4, 16, 16))
    step, z = prior.schedule(2, "ddpm")[0], torch.randn(1, 4, 16, 16)
    assert prior.denoise(z, step, prior.condition([CHURCH]))[0].shape == z.shape
    for size in (33, 0, -2):
        with pytest.raises(UsageError, match=f"--size {size} is no multiple of 2"):
            load_prior(folders("sdxl"), size=size, device="cpu")


def test_bf16_is_the_precision_of_all_networks(folders):
    prior = load_prior(folders("sd3"), precision="bf16", device="cpu")
    assert next(prior.network.parameters()).dtype == torch.bfloat16
    step, z = prior.schedule(2, "ddpm")[0], torch.randn(1, *prior.latent_shape)
    assert prior.denoise(z, step, prior.condition([CHURCH]))[0].dtype == torch.float32


def test_a_damaged_pipeline_is_refused_in_one_line(folders, tmp_path, photos, inline):
    folder = shutil.copytree(folders("sdxl"), tmp_path / "sdxl")
    asked = ("distill", "--source", f"folder:{photos}", "--prior", folder, "--out", tmp_path / "run")

    def refused(path, content, said, code=1):
        kept = (folder / path).read_bytes()
        (folder / path).unlink() if content is None else (folder / path).write_bytes(content)
        last = inline(*asked, code=code).stderr.splitlines()[-1]
        assert last.startswith("error: ")
        assert said in last
        (folder / path).write_bytes(kept)

    config = json.loads((folder / "unet" / "config.json").read_text())
    wider = {**config, "block_out_channels": [64 for _ in config["block_out_channels"]]}
    refused("unet/config.json", json.dumps(wider).encode(), "the unet in")
    refused("unet/diffusion_pytorch_model.safetensors", None, "no weights in")
    refused("unet/diffusion_pytorch_model.safetensors", b"nothing", "the unet in")
    refused("text_encoder_2/model.safetensors", b"nothing", "the text_encoder_2 in")
    refused("scheduler/scheduler_config.json", b'{"prediction_type": "score"}', "unknown prediction_type 'score'")
    index = json.loads((folder / "model_index.json").read_text())
    refused(
        "model_index.json", json.dumps({**index, "unet": ["evil", "Unet"]}).encode(), "is of evil, not of diffusers"
    )
    refused("model_index.json", json.dumps({**index, "_class_name": "FluxPipeline"}).encode(), "is a FluxPipeline")


@pytest.mark.parametrize("name", ["sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5", "somebody/pipeline"])
def test_a_pipeline_comes_from_the_hubs_cache(folders, tmp_path, monkeypatch, name):
    hub_id = "somebody/pipeline" if name.startswith("some") else "stable-diffusion-v1-5/stable-diffusion-v1-5"
    cache = tmp_path / "cache" / f"models--{hub_id.replace('/', '--')}"
    shutil.copytree(folders("sd15"), cache / "snapshots" / "abc123")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    prior = load_prior(name, device="cpu")
    assert (prior.identity.id, prior.identity.revision) == ("sd15" if "v1-5" in hub_id else name, "abc123")
    assert prior.condition([CHURCH]).embeddings["prompt"].shape[0] == 1


def test_compilation_is_refused_before_anything_is_encoded(folders, photos, tmp_path, inline):
    asked = ("--source", f"folder:{photos}", "--prior", folders("sd15"), "--compile", "--out", tmp_path / "run")
    said = inline("distill", *asked, code=2).stderr
    assert "cannot be compiled; leave --compile out" in said.splitlines()[-1]
    assert "encode:" not in said


def test_a_pipeline_from_python(folders, photos, tmp_path):
    run = dmgd.distill(
        f"folder:{photos}", load_prior(folders("sd15"), size=32), ipc=1, steps=2, method="dit", out=tmp_path / "run"
    )
    assert run.pixels(run.records()[0]).shape == (32, 32, 3)
    assert run.manifest["prior"]["prompts"]["template"] == "a photo of a {name}"
    steps = [step.timestep for step in load_prior(folders("sd15")).schedule(5, "ddpm")]
    assert all(before < after for before, after in pairwise(steps))
