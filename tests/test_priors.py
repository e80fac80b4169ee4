"""All ways to name a prior, and the errors when it cannot be loaded."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

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
        ({"_class_name": "UnCLIPScheduler"}, "does not support: UnCLIPScheduler"),
        ({"_class_name": ["DDPMScheduler"]}, "does not support"),
        ({"trained_betas": [0.1, 0.2]}, "does not support: trained_betas"),
        ({"rescale_betas_zero_snr": True}, "does not support: rescale_betas_zero_snr"),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned"}, "does not support: variance_type 'learned'"),
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


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(path, change):
    state = load_file(path)
    save_file(change(state) or state, path)


FIRST = "transformer_blocks.0.attn1.to_q.weight"
WRONG_TENSORS = {
    "missing": (lambda state: {k: v for k, v in state.items() if k != FIRST}, "lacks 'transformer_blocks.0.attn1.to_q"),
    "unexpected": (lambda state: {**state, "adapter.weight": torch.ones(2)}, "Unexpected.*adapter.weight"),
    "of a block too many": (lambda state: {**state, FIRST.replace("0", "7", 1): torch.ones(1)}, "Unexpected.*7.attn1"),
    "with a prefix": (lambda state: {f"module.{k}": v for k, v in state.items()}, "it has module.pos_embed.proj.bias"),
    "misshapen": (lambda state: {**state, FIRST: torch.ones(3, 3)}, "does not fit a DiT"),
    "NaN": (lambda state: state[FIRST].fill_(torch.nan).sum() and None, "finite in blocks.0.attention.qkv.weight"),
    "whole numbers": (lambda state: {k: v.to(torch.int8) for k, v in state.items()}, "finite in"),
    "another position embedding": (lambda state: {**state, "pos_embed.pos_embed": torch.ones(1, 16, 48)}, "position"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_TENSORS)
def test_tensors_that_are_not_a_dits_are_named(kind, tmp_path, golden, inline):
    change, said = WRONG_TENSORS[kind]
    shutil.copytree(golden / "dit-tiny-diffusers", tmp_path / "prior")
    change_tensors(tmp_path / "prior" / "diffusion_pytorch_model.safetensors", change)
    command = (
        "fit-stats",
        "--source",
        "digits",
        "--prior",
        tmp_path / "prior",
        "--vae",
        "none",
        "--out",
        tmp_path / "s",
    )
    error = inline(*command, code=1).stderr
    assert error.count("\n") == 1
    assert re.search(said, error)


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
    ("dmgd.json", {"guidance_scale": -1}, "guidance-scale must be at least 0, not -1"),
    ("dmgd.json", {"guidance_scale": None}, "guidance-scale must be a finite number, not None"),
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


def test_an_autoencoder_with_other_tensors_or_settings_is_refused(pipeline):
    """diffusers itself fills missing tensors with random numbers, without a word."""
    weights, config = (pipeline / "vae" / name for name in ("diffusion_pytorch_model.safetensors", "config.json"))
    whole, settings = weights.read_bytes(), config.read_bytes()
    first = "decoder.conv_in.bias"
    for change, said in (
        (lambda state: {k: v for k, v in state.items() if k != first}, "missing: decoder.conv_in.bias"),
        (lambda state: {**state, "extra": torch.ones(1)}, "unexpected: extra"),
        (lambda state: {f"vae.{k}": v for k, v in state.items()}, "unexpected: vae.decoder.conv_in.bias"),
        (lambda state: {**state, first: torch.full((8,), torch.inf)}, "not finite: decoder.conv_in.bias"),
        (lambda state: {**state, first: torch.ones(7)}, "size mismatch"),
    ):
        change_tensors(weights, change)
        with pytest.raises(ArtifactError, match=said) as caught:
            load_prior(str(pipeline))
        assert "\n" not in str(caught.value)
        weights.write_bytes(whole)
    for changes in (
        *({"scaling_factor": value} for value in (None, 0, "x", float("nan"), float("inf"))),
        *({"latents_std": [0.0] * 4}, {"latents_mean": [1.0, 2.0]}, {"latents_mean": "x"}, {"block_out_channels": 8}),
        *({"block_out_channels": [8, "8"]}, {"latent_channels": -4}, {"_class_name": ["AutoencoderKL"]}),
    ):
        change_json(config, **changes)
        with pytest.raises(ArtifactError) as caught:
            load_prior(str(pipeline))
        assert "\n" not in str(caught.value)
        config.write_bytes(settings)
    load_prior(str(pipeline))


@pytest.mark.parametrize("content", ["", [], [torch.ones(1)], torch.ones(1), {"ema": {}}, {"a": 1}, {1: torch.ones(1)}])
def test_a_checkpoint_that_holds_no_network_is_refused(content, tmp_path):
    path = tmp_path / "dit.pt"
    path.write_bytes(b"") if content == "" else torch.save(content, path)
    with pytest.raises(ArtifactError, match=r"dit\.pt (is not a file of plain tensors|lacks)") as caught:
        load_prior(str(path), vae="none")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("pos_embed", torch.zeros(1, 16, 48), "position embedding"),
        ("pos_embed", torch.zeros(1, 10**6, 1), "sample-size must be at most"),
        ("x_embedder.proj.weight", torch.zeros(48), "does not fit"),
        ("blocks.99999999.attn.qkv.bias", torch.zeros(1), "depth must be at most"),
        ("blocks.x.attn.qkv.bias", torch.zeros(1), "does not fit"),
        ("blocks.0.attn.gamma1", torch.tensor(1.0), "does not fit"),
        ("blocks.7.attn.gamma1", torch.ones(1), "lacks 'blocks.7.attn.qkv.weight'"),
    ],
)
def test_an_original_checkpoint_with_a_wrong_tensor_is_refused(name, tensor, said, tmp_path, golden):
    shutil.copy(golden / "dit_tiny_original.dmgd.json", tmp_path)
    state = torch.load(golden / "dit_tiny_original.pt", weights_only=True)
    state = state.get("ema", state)
    torch.save({**state, name: tensor}, tmp_path / "dit_tiny_original.pt")
    with pytest.raises(ArtifactError, match=said) as caught:
        load_prior(str(tmp_path / "dit_tiny_original.pt"), vae="none")
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
