"""Our DiT against diffusers' module, and the two formats of weights."""

import functools
import subprocess
import sys

import pytest
import torch
from diffusers import DiTTransformer2DModel
from safetensors.torch import save_file

from dmgd.errors import ArtifactError, DmgdError
from dmgd.priors.checkpoints import fold_gamma, load_diffusers_dit, load_original_dit
from dmgd.priors.dit import DiT, DiTConfig
from dmgd.priors.weights import read_checkpoint

SHAPE = {"num_attention_heads": 3, "attention_head_dim": 24, "in_channels": 4, "out_channels": 8, "num_layers": 3,
         "sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 10}  # fmt: skip


def diffusers_dit(seed=0, tied=False):
    torch.manual_seed(seed)
    model = DiTTransformer2DModel(**SHAPE).eval()
    if tied:
        for block in model.transformer_blocks[1:]:
            block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    return model


def with_original_numerics(model):
    """The corrections that make diffusers' module compute what facebookresearch/DiT does."""
    for block in model.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
        block.norm3.eps = 1e-6
    return model


def saved(model, folder):
    model.save_config(folder)
    save_file({k: v.clone() for k, v in model.state_dict().items()}, folder / "diffusion_pytorch_model.safetensors")
    return folder


def difference(model, network, t):
    """Largest difference between diffusers' prediction and ours, relative to the prediction's size."""
    z, y = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 4, 10])
    with torch.no_grad():
        expected = model(z, timestep=torch.full((3,), t), class_labels=y).sample
        found = network(z, t, network.label_embedding(y))
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("tied", [True, False])
def test_models_trained_in_diffusers(tmp_path, tied):
    model = diffusers_dit(tied=tied)
    network, numerics, _ = load_diffusers_dit(saved(model, tmp_path), "diffusers" if tied else None)
    assert numerics == "diffusers"
    assert max(difference(model, network, t) for t in (999, 500, 20, 0)) < 1e-5


def load_original(path, num_heads):
    return load_original_dit(path, read_checkpoint(path).state, num_heads)


def original_state(model):
    """The weights of a diffusers DiT under the names of facebookresearch/DiT."""
    s = model.state_dict()
    names = {
        "x_embedder.proj": "pos_embed.proj",
        "t_embedder.mlp.0": "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1",
        "t_embedder.mlp.2": "transformer_blocks.0.norm1.emb.timestep_embedder.linear_2",
        "final_layer.adaLN_modulation.1": "proj_out_1",
        "final_layer.linear": "proj_out_2",
    }
    for i in range(SHAPE["num_layers"]):
        theirs, ours = f"blocks.{i}", f"transformer_blocks.{i}"
        names |= {
            f"{theirs}.adaLN_modulation.1": f"{ours}.norm1.linear",
            f"{theirs}.attn.proj": f"{ours}.attn1.to_out.0",
            f"{theirs}.mlp.fc1": f"{ours}.ff.net.0.proj",
            f"{theirs}.mlp.fc2": f"{ours}.ff.net.2",
        }
    state = {f"{a}.{kind}": s[f"{b}.{kind}"].clone() for a, b in names.items() for kind in ("weight", "bias")}
    for i in range(SHAPE["num_layers"]):
        for kind in ("weight", "bias"):
            parts = [s[f"transformer_blocks.{i}.attn1.to_{which}.{kind}"] for which in "qkv"]
            state[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(parts)
    state["y_embedder.embedding_table.weight"] = s[
        "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"
    ].clone()
    state["pos_embed"] = model.pos_embed.pos_embed.clone()
    return state


def test_original_checkpoint_and_its_conversion_agree(tmp_path):
    model = diffusers_dit(tied=True)
    state = original_state(model)
    torch.save({"ema": state}, tmp_path / "dit.pt")
    original = load_original(tmp_path / "dit.pt", num_heads=3)
    torch.testing.assert_close(original.position, state["pos_embed"], rtol=0, atol=1e-6)
    (tmp_path / "converted").mkdir()
    converted, numerics, _ = load_diffusers_dit(saved(model, tmp_path / "converted"), None)
    assert numerics == "original"
    for t in (999, 500, 20, 0):
        assert difference(with_original_numerics(model), original, t) < 1e-5
        assert difference(model, converted, t) < 1e-5


def test_without_the_corrections_the_conversion_is_off(tmp_path):
    model = diffusers_dit(tied=True)
    network, _, _ = load_diffusers_dit(saved(model, tmp_path), "original")
    assert difference(model, network, 999) > 1e-4


def test_diffit_scales_fold_into_the_layers(golden):
    folded = load_original(golden / "dit_tiny_original.safetensors", num_heads=4)
    expected, _, _ = load_diffusers_dit(golden / "dit-tiny-diffusers", None)
    for (name, found), (_, wanted) in zip(folded.state_dict().items(), expected.state_dict().items(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7, msg=name)
    with pytest.raises(ArtifactError, match=r"blocks\.0\.gamma9"):
        fold_gamma({"blocks.0.gamma9": torch.ones(2)})


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(golden, precision):
    network, _, _ = load_diffusers_dit(golden / "dit-tiny-diffusers", None)
    z, label = torch.randn(2, 4, 8, 8), network.label_embedding(torch.tensor([1, 2]))
    with torch.no_grad():
        expected, found = network(z, 500, label), network.to(precision)(z, 500, label)
    assert found.dtype == precision
    assert ((found.float() - expected).norm() / expected.norm()).item() < 0.02


def test_half_precision_knows_late_timesteps(golden):
    """The angles of the time embedding are computed in float32: in bf16 those of t 999 would be noise."""
    network, _, _ = load_diffusers_dit(golden / "dit-tiny-diffusers", None)
    for embedder in network.embedders:
        embedder.time = torch.nn.Identity()  # what follows hardly reacts to the time in a network that was not trained
    nothing = torch.zeros(1, len(network.embedders), 256)
    with torch.no_grad():
        expected, found = network.conditions(999, nothing), network.to(torch.bfloat16).conditions(999, nothing)
    assert ((found.float() - expected).norm() / expected.norm()).item() < 0.01


def test_a_new_network_has_a_random_label_table_that_can_be_trained():
    torch.manual_seed(0)
    (embedder,) = DiT(DiTConfig(8, 2, 4, 8, 48, 2, 4, 1000)).embedders
    assert embedder.label.weight.requires_grad
    assert embedder.label.weight.shape == (1001, 48)
    assert embedder.label.weight.std().item() == pytest.approx(1, abs=0.02)


def test_misfitting_tensors_are_named(tmp_path, golden):
    network = DiT(DiTConfig(8, 2, 4, 8, 48, 2, 4, 10))
    save_file(network.state_dict(), tmp_path / "ours.safetensors")
    with pytest.raises(ArtifactError, match="neither a checkpoint with the names"):
        load_original(tmp_path / "ours.safetensors", None)
    with pytest.raises(ArtifactError, match="num_heads"):
        load_original(golden / "dit_tiny_original.pt", None)
    (tmp_path / "broken.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ArtifactError, match="broken"):
        load_original(tmp_path / "broken.safetensors", 4)


COMPILED = """
import sys, torch
from dmgd.priors.checkpoints import load_diffusers_dit
network, _, _ = load_diffusers_dit(__import__("pathlib").Path(sys.argv[1]), None)
fast = network.compiled()
for rows in (3, 2):
    z, label = torch.randn(rows, 4, 8, 8), network.label_embedding(torch.arange(rows))
    for t in (999, 20):
        with torch.no_grad():
            torch.testing.assert_close(fast(z, t, label), network(z, t, label), rtol=1e-5, atol=1e-5)
assert "trunk" in vars(fast) and "trunk" not in vars(network)
"""


def test_the_compiled_network_computes_the_same(tmp_path):
    """With another batch size, too, and without changing the original network. In a separate process, because the
    shape checks that pytest adds to every signature cannot be compiled."""
    folder = saved(diffusers_dit(tied=True), tmp_path)
    done = subprocess.run([sys.executable, "-c", COMPILED, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_failed_compilation_is_a_one_line_error(tmp_path, monkeypatch):
    network, _, _ = load_diffusers_dit(saved(diffusers_dit(tied=True), tmp_path), None)
    monkeypatch.setattr(torch, "compile", lambda call, **options: functools.partial(_without_compiler, call))
    with pytest.raises(DmgdError, match=r"cannot be compiled here \(no C\+\+ compiler\); leave --compile out"):
        network.compiled()(torch.zeros(1, 4, 8, 8), 0, network.label_embedding(torch.tensor([1])))


def _without_compiler(call, *arguments):
    raise torch._dynamo.exc.TorchDynamoException("no C++ compiler\nand much more")
