"""All ways to name a prior, and the errors when it cannot be loaded."""

import json
import pickle
import shutil

import diffusers
import pytest
import torch

from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, DmgdError, MismatchError, UsageError
from dmgd.priors.load import load_prior


@pytest.fixture
def pipeline(tmp_path, golden):
    """A pipeline folder as on the Hub: transformer/ and a small AutoencoderKL in vae/."""
    shutil.copytree(golden / "dit-tiny-diffusers", tmp_path / "pipeline" / "transformer")
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, latent_channels=4, scaling_factor=0.2,
    )  # fmt: skip
    vae.save_pretrained(tmp_path / "pipeline" / "vae")
    return tmp_path / "pipeline"


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
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000},
            "does not support: FlowMatch",
        ),
        ({"sigma_min": 0.002, "sigma_max": 80}, "does not support: sigma_min, sigma_max"),
        ({"prediction_type": "flow"}, "does not support: prediction_type 'flow'"),
        ({"beta_schedule": "cubic"}, "the β schedule 'cubic' is not known"),
        ({"beta_start": "0.0001"}, "describes no diffusion"),
        ({"beta_start": -1.0}, "describes no diffusion"),
        ({"beta_end": 1.0}, "its signal does not fall from 1 to above 0"),
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


def test_a_pickle_that_could_run_code_is_refused(tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"weights": torch.zeros(1), "extra": shutil.copytree}, path)
    with pytest.raises(ArtifactError, match="could run code"):
        load_prior(str(path))
    path.write_bytes(pickle.dumps({"a": 1})[:-3])
    with pytest.raises(ArtifactError, match=r"evil\.pt"):
        load_prior(str(path))


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
