"""All ways to name a prior, and the errors when it cannot be loaded."""

import json
import os
import shutil
import subprocess
import sys

import diffusers
import pytest
import torch

from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, DmgdError, MismatchError, UsageError
from dmgd.priors.load import load_prior


@pytest.fixture
def tiny_autoencoder(tmp_path):
    torch.manual_seed(0)
    vae = diffusers.AutoencoderTiny(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
                                    num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))  # fmt: skip
    vae.save_pretrained(tmp_path / "taesd")
    return tmp_path / "taesd"


def test_the_embedded_prior():
    prior = load_prior("digits")
    assert [info.name for info in prior.classes] == list("0123456789")
    assert (prior.latent_shape, prior.image_size, prior.codec.image_channels) == ((1, 8, 8), 8, 1)
    assert prior.defaults.guidance_scale == 1.5
    images = torch.arange(64, dtype=torch.uint8).mul(4).reshape(1, 8, 8, 1)
    assert torch.equal(prior.decode(prior.encode(images)), images)
    assert prior.encode(images).min() == -1


def test_a_pipeline_folder_brings_its_autoencoder(pipeline):
    prior = load_prior(str(pipeline))
    assert prior.image_size == 16  # 8 latent pixels, one halving
    images = torch.randint(256, (2, 16, 16, 3), dtype=torch.uint8)
    latents = prior.encode(images)
    assert latents.shape == (2, 4, 8, 8)
    assert torch.equal(latents, prior.encode(images))  # the posterior's mean, not a sample
    vae = diffusers.AutoencoderKL.from_pretrained(pipeline / "vae", low_cpu_mem_usage=False).eval()
    with torch.no_grad():
        expected = vae.encode(images.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean * 0.2
    torch.testing.assert_close(latents, expected)
    assert prior.decode(latents).shape == images.shape


def scheduled(pipeline, **config):
    """The pipeline with a scheduler's configuration."""
    (pipeline / "scheduler").mkdir(exist_ok=True)
    (pipeline / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    return pipeline


@pytest.mark.parametrize("name", ["pipeline", "pipeline/transformer"])
def test_schedule_and_prediction_are_those_of_the_pipeline(pipeline, name):
    """Against diffusers' scheduler, which turns a predicted v into x_0 by itself."""
    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduled(pipeline, prediction_type="v_prediction", _class_name="DDIMScheduler", **settings)
    prior = load_prior(str(pipeline.parent / name), vae=str(pipeline / "vae"), device="cpu")
    reference = diffusers.DDIMScheduler(
        prediction_type="v_prediction", clip_sample=False, timestep_spacing="linspace", **settings
    )
    reference.set_timesteps(10)
    z, condition = torch.randn(1, *prior.latent_shape), prior.null_condition(1)
    for step in prior.schedule(10, "ddpm"):
        x0, _ = prior.denoise(z, step, condition)
        v = prior.network(z, step.timestep, condition.embeddings["label"])[:, :4]
        expected = reference.step(v, int(step.timestep), z).pred_original_sample
        torch.testing.assert_close(x0, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"_class_name": "FlowMatchLCMScheduler"}, "FlowMatchLCMScheduler is not supported"),
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True},
            "use_dynamic_shifting is not",
        ),
        ({"_class_name": "UnCLIPScheduler"}, "UnCLIPScheduler is not supported"),
        ({"_class_name": ["DDPMScheduler"]}, "is not supported"),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned"}, "variance_type 'learned' is not supported"),
        ({"sigma_min": 0.002, "sigma_max": 80}, "sigma_min, sigma_max are not supported"),
        ({"prediction_type": "flow_prediction", "use_flow_sigmas": False}, "unknown prediction_type"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas is not supported"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": "wide"}, "could not convert"),
        ({"rescale_betas_zero_snr": True}, "cannot start from pure noise"),
        ({"beta_schedule": "cubic"}, "the β schedule 'cubic' is not known"),
        ({"beta_start": "0.0001"}, "describes no diffusion"),
        ({"beta_start": -1.0}, "describes no diffusion"),
        ({"beta_end": 1.5}, "does not fall from 1"),
        ({"num_train_timesteps": 1}, "describes no diffusion"),
    ],
)
def test_a_diffusion_that_cannot_be_sampled_is_refused(pipeline, config, said):
    with pytest.raises(ArtifactError, match=said):
        load_prior(str(scheduled(pipeline, **config)))


@pytest.mark.parametrize("name", ["dit-xl-2-256", "facebook/DiT-XL-2-256"])
def test_a_published_prior_comes_from_the_hubs_cache(pipeline, tmp_path, monkeypatch, name):
    """The snapshot is a small stand-in: what counts is where it is looked up and its built-in description."""
    cache = tmp_path / "cache" / "models--facebook--DiT-XL-2-256"
    shutil.copytree(pipeline, cache / "snapshots" / "abc123")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    prior = load_prior(name)
    assert prior.identity.id == "dit-xl-2-256"
    assert (prior.identity.revision, prior.identity.numerics) == ("abc123", "original")
    assert (prior.defaults.guidance_scale, prior.defaults.guided_channels) == (4.0, 3)


def test_another_autoencoder_makes_another_prior(pipeline, tiny_autoencoder):
    own, other = load_prior(str(pipeline)), load_prior(str(pipeline), vae=str(tiny_autoencoder))
    assert other.encode(torch.zeros(1, 16, 16, 3, dtype=torch.uint8)).shape == (1, 4, 8, 8)
    assert own.identity.digest != other.identity.digest


def test_original_checkpoint_with_its_description(golden):
    prior = load_prior(str(golden / "dit_tiny_original.pt"), vae="none")
    assert prior.identity.id == "tiny"
    assert prior.identity.numerics == "original"
    with pytest.raises(UsageError, match="--vae"):
        prior.decode(torch.zeros(1, 4, 8, 8))


def test_a_prior_without_autoencoder_asks_for_one(golden):
    with pytest.raises(ArtifactError, match="give --vae"):
        load_prior(str(golden / "dit-tiny-diffusers"))


def test_missing_classes_are_named():
    prior = load_prior("digits")
    with pytest.raises(MismatchError, match=r"lacks 1 of the 2 classes: n01440764"):
        prior.match_classes([ClassInfo("3"), ClassInfo("tench", "n01440764")])
    # Matched by name, not by position.
    assert [info.prior_index for info in prior.match_classes([ClassInfo("7"), ClassInfo("2")])] == [7, 2]


def broken(kind, folder, golden):
    """A copy of the tiny DiT with one thing wrong."""
    shutil.copytree(golden / "dit-tiny-diffusers", folder)
    config = folder / "config.json"
    if kind == "no weights":
        (folder / "diffusion_pytorch_model.safetensors").unlink()
    elif kind == "no config":
        config.unlink()
    elif kind == "config is not JSON":
        config.write_text("{")
    elif kind == "config lacks a field":
        config.write_text(json.dumps({"num_layers": 2}))
    elif kind == "other shape":
        config.write_text(json.dumps({**json.loads(config.read_text()), "num_embeds_ada_norm": 7}))
    elif kind == "truncated weights":
        weights = folder / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif kind == "unknown field in the description":
        (folder / "dmgd.json").write_text('{"guidance": 2}')
    elif kind == "wrong number of classes":
        (folder / "dmgd.json").write_text('{"classes": ["a", "b"]}')


KINDS = [
    "no weights",
    "no config",
    "config is not JSON",
    "config lacks a field",
    "other shape",
    "truncated weights",
    "unknown field in the description",
    "wrong number of classes",
]


@pytest.mark.parametrize("kind", KINDS)
def test_broken_folders_give_a_clear_error(kind, tmp_path, golden):
    broken(kind, tmp_path / "prior", golden)
    with pytest.raises(ArtifactError) as caught:
        load_prior(str(tmp_path / "prior"), vae="none")
    assert "\n" not in str(caught.value)


WRONG_SETTINGS = [
    ("config.json", {"num_layers": 10**6}, "depth must be at most 1000, not 1000000"),
    ("config.json", {"num_layers": "2"}, "depth must be a whole number, not '2'"),
    ("config.json", {"num_layers": -1}, "depth must be at least 1"),
    ("config.json", {"num_attention_heads": 10**9}, "width must be at most"),
    ("config.json", {"num_attention_heads": [4], "attention_head_dim": None}, "does not fit"),
    ("config.json", {"sample_size": 10**9}, "sample-size must be at most"),
    ("config.json", {"patch_size": 3}, "sample_size 8 is not a multiple of patch_size 3"),
    ("config.json", {"out_channels": 5}, "as many outputs, or twice as many"),
    ("config.json", {"norm_eps": float("nan"), "out_channels": 8}, "is not JSON: Out of range float"),
    ("config.json", {"activation_fn": "gelu"}, "activation_fn 'gelu'"),
    ("dmgd.json", {"numerics": "Original"}, "unknown numerics 'Original'; did you mean 'original'"),
    ("dmgd.json", {"prior_type": "SiT"}, "unknown prior-type 'SiT'; did you mean 'sit'"),
    ("dmgd.json", {"guidance_scale": -1}, "guidance-scale must be at least 0, not -1"),
    ("dmgd.json", {"guidance_scale": "4"}, "guidance-scale must be a finite number, not '4'"),
    ("dmgd.json", {"guidance_scale": float("inf")}, "is not JSON: Out of range float"),
    ("dmgd.json", {"guided_channels": 2.5}, "guided-channels must be a whole number"),
    ("dmgd.json", {"guided_channels": 0}, "guided-channels must be at least 1"),
    ("dmgd.json", {"guided_channels": 5}, "guided_channels is 5, its latents have 4"),
    ("dmgd.json", {"vae": 3}, "vae must be text, not 3"),
    ("dmgd.json", {"id": ["x"]}, "id must be text"),
    ("dmgd.json", {"id": "\ud800"}, "is not JSON: 'utf-8' codec can't encode"),
    ("dmgd.json", {"classes": "cat"}, "classes must be a list of names, or an object of them by row, not 'cat'"),
    ("dmgd.json", {"classes": [*"abcdefghi", 9]}, "row 9 is 9"),
    ("dmgd.json", {"classes": [*"abcdefghi", {"name": "j", "row": 9}]}, "row 9 is {'name': 'j', 'row': 9}"),
    ("dmgd.json", {"classes": [*"abcdefghi", {"wnid": "j"}]}, "row 9 is {'wnid': 'j'}"),
    ("dmgd.json", {"classes": [*"abcdefghia"]}, "classes has 'a' twice"),
    ("dmgd.json", {"classes": {"0": "a", "2": "b"}}, "row 1 is not there"),
    ("dmgd.json", ["id"], "is not a JSON object"),
]

REFUSALS = """
import json, sys
from pathlib import Path
from dmgd.errors import ArtifactError
from dmgd.priors.load import load_prior
folder = Path(sys.argv[1])
for name, content in json.load(sys.stdin):
    file = folder / name
    before = file.read_text() if file.is_file() else "{}"
    file.write_text(json.dumps({**json.loads(before), **content} if isinstance(content, dict) else content))
    try:
        load_prior(folder, vae="none")
    except ArtifactError as error:
        print(json.dumps(str(error)))
    else:
        print(json.dumps("it was read"))
    file.write_text(before)
load_prior(folder, vae="none")
assert "torch._dynamo" not in sys.modules, "a network that is loaded is not compiled; the import takes a second"
"""


def test_settings_that_are_not_a_dits_are_refused_in_one_line(tmp_path, golden):
    """In a process of its own, because under pytest the types of arguments are checked before they get there."""
    shutil.copytree(golden / "dit-tiny-diffusers", tmp_path / "prior")
    given = json.dumps([case[:2] for case in WRONG_SETTINGS])
    command = [sys.executable, "-c", REFUSALS, tmp_path / "prior"]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for (name, _, said), line in zip(WRONG_SETTINGS, map(json.loads, done.stdout.splitlines()), strict=True):
        assert name in line
        assert said in line
        assert "\n" not in line


@pytest.mark.parametrize("name", ["dmgd.json", "config.json", "diffusion_pytorch_model.safetensors"])
def test_pipes_and_devices_are_not_read(tmp_path, golden, name):
    """They would never end."""
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        folder = shutil.copytree(golden / "dit-tiny-diffusers", tmp_path / "prior", dirs_exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        with pytest.raises(ArtifactError, match=r"is not a file|no weights"):
            load_prior(str(folder), vae="none")
        shutil.rmtree(folder)


def test_classes_by_row_are_in_the_order_of_the_rows(tmp_path, golden):
    """They were read as the names "9", "8", …"""
    shutil.copytree(golden / "dit-tiny-diffusers", tmp_path / "prior")
    by_row = {str(row): "abcdefghij"[row] for row in reversed(range(10))}
    (tmp_path / "prior" / "dmgd.json").write_text(json.dumps({"classes": by_row}))
    assert [info.name for info in load_prior(str(tmp_path / "prior"), vae="none").classes] == [*"abcdefghij"]


@pytest.mark.parametrize(("name", "message"), [
    ("digit", "did you mean 'digits'"),
    ("dit-xl-2-256", "HF_HOME"),
    ("facebook/DiT-XL-2-256", "not in the cache"),
    ("./nowhere", "does not exist"),
    ("nowhere.safetensors", "does not exist"),
])  # fmt: skip
def test_priors_that_cannot_be_loaded(name, message):
    with pytest.raises(DmgdError, match=message):
        load_prior(name)
