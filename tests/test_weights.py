"""Weights as they are found in the wild: which files are read, and the one line for those that cannot be."""

import json
import pickle
import re
import shutil
from argparse import Namespace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from source_stand_ins import as_folder, pictures

from dmgd.classes.imagenet import imagenet_classes
from dmgd.errors import ArtifactError
from dmgd.files import sha256_bytes, sha256_file
from dmgd.priors.description import read_description
from dmgd.priors.load import load_prior
from dmgd.priors.weights import read_checkpoint

NAME = "diffusion_pytorch_model"
FIRST = "transformer_blocks.0.attn1.to_q.weight"
TABLE = "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"


@pytest.fixture
def tiny(tmp_path, golden):
    """A copy of the tiny DiT's folder."""
    return shutil.copytree(golden / "dit-tiny-diffusers", tmp_path / "tiny")


@pytest.fixture
def refusal(inline, tmp_path):
    """What the command says of a prior: one line, and no escape sequence."""

    def refuse(prior, *options):
        command = ("fit-stats", "--source", "digits", "--prior", prior, "--out", tmp_path / "s.safetensors", *options)
        error = inline(*command, code=1).stderr
        assert error.count("\n") == 1
        assert error.startswith("error: ")
        assert "\x1b" not in error
        assert "\\x1b" not in error
        return error

    return refuse


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(path, change):
    state = load_file(path)
    save_file(change(state) or state, path)


def digest(prior):
    return load_prior(str(prior), vae="none").identity.digest


# The files of a folder.

LAYOUTS = {
    "fp16": {"variant": "fp16"},
    "pickled": {"safe_serialization": False},
    "pickled, fp16": {"safe_serialization": False, "variant": "fp16"},
    "sharded": {"max_shard_size": "15KB"},
    "sharded, fp16": {"max_shard_size": "15KB", "variant": "fp16"},
    "sharded, fp16, as older versions name its index": {"max_shard_size": "15KB", "variant": "fp16"},
    "sharded, pickled": {"max_shard_size": "15KB", "safe_serialization": False},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_network_and_autoencoder_are_read_in_every_layout_that_diffusers_writes(layout, pipeline, tmp_path):
    """Here in half precision, except for the plain one, which has the same numbers."""
    for part, kind in (("transformer", diffusers.DiTTransformer2DModel), ("vae", diffusers.AutoencoderKL)):
        half = kind.from_pretrained(pipeline / part, torch_dtype=torch.bfloat16, low_cpu_mem_usage=False)
        half.save_pretrained(tmp_path / "found" / part, **LAYOUTS[layout])
        half.float().save_pretrained(pipeline / part)
        if "older" in layout:
            index = tmp_path / "found" / part / f"{NAME}.safetensors.index.fp16.json"
            index.rename(index.with_name(f"{NAME}.fp16.safetensors.index.json"))
    plain, other = load_prior(str(pipeline)), load_prior(str(tmp_path / "found"))
    for ours, theirs in ((plain.network, other.network), (plain.codec._model, other.codec._model)):
        for (name, one), another in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.equal(one, another), name
            assert another.dtype == torch.float32


def test_the_plain_file_comes_first_and_its_digest_is_that_of_its_bytes(tiny):
    """Runs and statistics record it."""
    weights = tiny / f"{NAME}.safetensors"
    assert digest(tiny) == sha256_bytes(sha256_file(weights).encode())
    before = digest(tiny)
    (tiny / f"{NAME}.fp16.safetensors").write_bytes(b"not read")
    (tiny / f"{NAME}.safetensors.index.json").write_text("not read")
    assert digest(tiny) == before


@pytest.fixture
def sharded(tiny):
    """The tiny DiT in shards, and their names."""
    model = diffusers.DiTTransformer2DModel.from_pretrained(tiny, low_cpu_mem_usage=False)
    (tiny / f"{NAME}.safetensors").unlink()
    model.save_pretrained(tiny, max_shard_size="100KB")
    return tiny, sorted(path.name for path in tiny.glob("*.safetensors"))


def test_the_digest_is_that_of_all_shards(sharded):
    folder, names = sharded
    before = digest(folder)
    for name in names:
        whole = (folder / name).read_bytes()
        change_tensors(folder / name, lambda state: next(iter(state.values())).view(-1)[:1].add_(1) and None)
        assert digest(folder) != before
        (folder / name).write_bytes(whole)
    assert digest(folder) == before


def test_shards_that_are_missing_or_do_not_fit_their_index_are_named(sharded, refusal):
    folder, (first, *_, last) = sharded
    index = folder / f"{NAME}.safetensors.index.json"
    whole = index.read_text()
    shutil.copy(folder / last, folder / "extra.safetensors")
    for listed, said in (
        ({FIRST: "../secret.safetensors"}, "lists '../secret.safetensors', not weights in its folder"),
        ({FIRST: "config.json"}, "lists 'config.json', not weights"),
        ({FIRST: 3}, "has no weight_map"),
        (None, "has no weight_map"),
        ({**json.loads(whole)["weight_map"], "x": "extra.safetensors"}, "that another shard has, too"),
        ({FIRST: first}, "is missing"),
    ):
        change_json(index, weight_map=listed)
        assert said in refusal(folder, "--vae", "none")
    index.write_text(whole)
    (folder / last).unlink()
    assert f"lacks 1 of the 6 shards that {index.name} lists: {last}; copy" in refusal(folder, "--vae", "none")


# Checkpoints of training scripts.


@pytest.fixture
def original(tmp_path, golden):
    """The tensors of the tiny checkpoint with the names of facebookresearch/DiT; the path of another, described."""
    shutil.copy(golden / "dit_tiny_original.dmgd.json", tmp_path / "0100000.dmgd.json")
    state = torch.load(golden / "dit_tiny_original.pt", weights_only=True)
    return state.get("ema", state), tmp_path / "0100000.pt"


def as_trained(state, **args):
    """The checkpoint that the training scripts of DiT and Minimax write."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(2)
    optimizer.step()
    model = {name: one + 1 for name, one in state.items()}
    script = Namespace(model="DiT-XL/2", image_size=256, lr=1e-4, betas=[0.9, 0.999], **args)
    return {"model": model, "ema": state, "opt": optimizer.state_dict(), "args": script}


def test_a_training_scripts_checkpoint_gives_its_ema_and_its_arguments(original):
    state, path = original
    torch.save(state, path)
    plain = load_prior(str(path), vae="none").network.state_dict()
    for legacy in (False, True):  # torch's file format before 1.6, which cannot be mapped
        torch.save(as_trained(state), path, _use_new_zipfile_serialization=not legacy)
        loaded = load_prior(str(path), vae="none").network.state_dict()
        assert all(torch.equal(loaded[name], plain[name]) for name in plain)
    assert read_checkpoint(path).args["model"] == "DiT-XL/2"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_prefixes_of_training_wrappers_are_removed(original, prefix, tiny):
    state, path = original
    torch.save({"model": {prefix + name: one for name, one in state.items()}}, path)
    load_prior(str(path), vae="none")
    change_tensors(tiny / f"{NAME}.safetensors", lambda s: {prefix + name: one for name, one in s.items()})
    load_prior(str(tiny), vae="none")


def test_a_prefix_that_not_all_tensors_have_is_not_removed(original, refusal):
    state, path = original
    torch.save({**{f"module.{name}": one for name, one in state.items()}, "extra": torch.ones(1)}, path)
    assert "lacks 'x_embedder.proj.weight', it has extra, module.blocks" in refusal(path, "--vae", "none")


class Hostile:
    """Runs code where a pickle with it is opened without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_with_other_objects_are_refused_by_their_names(original, refusal, tmp_path):
    state, path = original
    for extra, said in (
        ({"args": Namespace(data_path=Path("/data/imagenet"))}, r"holds a pathlib\.\w*Path: .* save the state_dict"),
        ({"loss": np.float64(1.5)}, r"holds a numpy\.\S*scalar: .* could run code and is refused; save"),
        ({"args": Namespace(evil=Hostile(tmp_path / "ran"))}, "could run code and is refused"),
        ({"network": torch.nn.Linear(1, 1)}, "holds a torch.nn.modules.linear.Linear"),
    ):
        torch.save({"ema": state, **extra}, path)
        assert re.search(said, refusal(path, "--vae", "none"))
    assert not (tmp_path / "ran").exists()
    path.write_bytes(pickle.dumps({"a": 1})[:-3])
    assert f"{path} is not a file of plain tensors: it is damaged" in refusal(path, "--vae", "none")


def test_a_pointer_of_git_lfs_is_recognised(tiny, refusal):
    weights = tiny / f"{NAME}.safetensors"
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 435632\n")
    assert "fetch them with git lfs pull" in refusal(tiny, "--vae", "none")


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
        ("pos_embed", torch.zeros(1, 15, 48), r"pos_embed is \(1, 15, 48\), not \(1, 16, 48\)"),
        ("pos_embed", torch.zeros(1, 10**6, 1), "sample-size must be at most"),
        ("x_embedder.proj.weight", torch.zeros(48), r"x_embedder.proj.weight is \(48,\), which has not 4 dimensions"),
        ("blocks.99999999.attn.qkv.bias", torch.zeros(1), "depth must be at most"),
        ("blocks.x.attn.qkv.bias", torch.zeros(1), "does not fit"),
        ("t_embedder.mlp.0.bias", torch.zeros(7), r"t_embedder.mlp.0.bias is \(7,\), not \(48,\)"),
        ("blocks.0.attn.gamma1", torch.tensor(1.0), r"gamma1 is \(\), but blocks.0.attn.qkv has weights \(144, 48\)"),
        ("blocks.7.attn.gamma1", torch.ones(1), "lacks 'blocks.7.attn.qkv.weight'"),
    ],
)
def test_an_original_checkpoint_with_a_wrong_tensor_is_refused(name, tensor, said, original):
    state, path = original
    torch.save({**state, name: tensor}, path)
    with pytest.raises(ArtifactError, match=said) as caught:
        load_prior(str(path), vae="none")
    assert "\n" not in str(caught.value)


# Tensors that are not those of the config.

WRONG_TENSORS = {
    "missing": (lambda s: {k: v for k, v in s.items() if k != FIRST}, f"DiT: {FIRST} is missing"),
    "unexpected": (lambda s: {**s, "adapter.weight": torch.ones(2)}, "DiT: adapter.weight is unexpected"),
    "of a block too many": (lambda s: {**s, FIRST.replace("0", "7", 1): torch.ones(1)}, "7.attn1.to_q.weight is unexp"),
    "of another network": (lambda s: {f"x.{k}": v for k, v in s.items()}, "it has none of its tensors, but x.pos"),
    "misshapen": (lambda s: {**s, FIRST: torch.ones(3, 3)}, rf"DiT: {FIRST} is \(3, 3\), not \(48, 48\)"),
    "a number": (lambda s: {**s, FIRST: torch.tensor(1.0)}, rf"DiT: {FIRST} is \(\), not \(48, 48\)"),
    "NaN": (lambda s: s[FIRST].fill_(torch.nan).sum() and None, f"not all numbers are finite in {FIRST}"),
    "whole numbers": (lambda s: {k: v.to(torch.int8) for k, v in s.items()}, "finite in"),
    "another position embedding": (lambda s: {**s, "pos_embed.pos_embed": torch.ones(1, 16, 48)}, "position embedding"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_TENSORS)
def test_tensors_that_are_not_a_dits_are_named(kind, tiny, refusal):
    change, said = WRONG_TENSORS[kind]
    change_tensors(tiny / f"{NAME}.safetensors", change)
    assert re.search(said, refusal(tiny, "--vae", "none"))


def with_positions(state):
    return {**state, "pos_embed.pos_embed": torch.zeros(1, 16, 48)}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_embeds_ada_norm": 7}, f"num_embeds_ada_norm 7, but {TABLE} is (11, 48), not (8, 48) in {NAME}.safetens"),
        ({"num_layers": 3}, "num_layers 3, but transformer_blocks.2.norm1.linear.weight is missing"),
        ({"num_layers": 1}, "num_layers 1, but transformer_blocks.1."),
        (
            {"attention_head_dim": 8},
            "num_attention_heads 4 and attention_head_dim 8, but pos_embed.proj.weight is (48",
        ),
        (
            {"in_channels": 3, "out_channels": 6},
            "in_channels 3, but pos_embed.proj.weight is (48, 4, 2, 2), not",
        ),
        ({"patch_size": 4}, "patch_size 4, but pos_embed.proj.weight is (48, 4, 2, 2), not (48, 4, 4, 4)"),
        ({"out_channels": 4}, "out_channels 4, but proj_out_2.weight is (32, 48), not (16, 48)"),
        ({"sample_size": 16}, "sample_size 16, but pos_embed.pos_embed is (1, 16, 48), not (1, 64, 48)"),
    ],
)
def test_the_setting_that_differs_from_the_weights_is_named(settings, said, tiny, refusal):
    change_tensors(tiny / f"{NAME}.safetensors", with_positions)
    change_json(tiny / "config.json", **settings)
    error = refusal(tiny, "--vae", "none")
    assert f"{tiny}/config.json says {said}" in error
    assert "correct it, or take the config.json that was saved with the weights" in error


def test_an_autoencoder_with_other_tensors_or_settings_is_refused(pipeline):
    """diffusers itself fills missing tensors with random numbers, without a word."""
    weights, config = (pipeline / "vae" / name for name in (f"{NAME}.safetensors", "config.json"))
    whole, settings = weights.read_bytes(), config.read_bytes()
    first = "decoder.conv_in.bias"
    for change, said in (
        (lambda state: {k: v for k, v in state.items() if k != first}, "decoder.conv_in.bias is missing"),
        (lambda state: {**state, "extra": torch.ones(1)}, "extra is unexpected"),
        (lambda state: {f"vae.{k}": v for k, v in state.items()}, "none of its tensors, but vae.decoder.conv_in.bias"),
        (lambda state: {**state, first: torch.full((8,), torch.inf)}, "not all numbers are finite in decoder.conv_in"),
        (lambda state: {**state, first: torch.ones(7)}, r"decoder.conv_in.bias is \(7,\), not \(8,\)"),
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
        *({"block_out_channels": [8, 16]}, {"latent_channels": 8}),
    ):
        change_json(config, **changes)
        with pytest.raises(ArtifactError) as caught:
            load_prior(str(pipeline))
        assert "\n" not in str(caught.value)
        config.write_bytes(settings)
    load_prior(str(pipeline))


def test_an_autoencoder_with_the_old_names_of_attention_is_read(pipeline):
    """As diffusers reads it, for example stabilityai/sd-vae-ft-ema."""
    new = load_prior(str(pipeline)).codec._model.state_dict()
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {re.sub(r"to_(q|k|v|out\.0)", lambda name: renamed[name[0]], name): one for name, one in new.items()}
    assert len(old.keys() - new.keys()) == 16
    (pipeline / "vae" / f"{NAME}.safetensors").unlink()
    torch.save(old, pipeline / "vae" / f"{NAME}.bin")
    found = load_prior(str(pipeline)).codec._model.state_dict()
    assert all(torch.equal(found[name], new[name]) for name in new)


# Names of classes.

LETTERS = {str(row): letter for row, letter in enumerate("abcdefghij")}


@pytest.mark.parametrize("file", ["model_index.json", "config.json", "transformer/config.json"])
def test_id2label_names_the_classes_wherever_it_is(file, tmp_path, golden):
    folder = shutil.copytree(golden / "dit-tiny-diffusers", tmp_path / "p" / Path(file).parent)
    config = json.loads((folder / "config.json").read_text()) if "config" in file else {"_class_name": "DiTPipeline"}
    prior = tmp_path / "p"
    # With the mark that some editors write first, and in the order of a sorted table's text.
    (prior / file).write_text(json.dumps({**config, "id2label": dict(sorted(LETTERS.items()))}), "utf-8-sig")
    assert [info.name for info in load_prior(str(prior), vae="none").classes] == [*"abcdefghij"]
    (prior / "dmgd.json").write_text(json.dumps({"classes": [*"klmnopqrst"]}))  # which comes first
    assert [info.name for info in load_prior(str(prior), vae="none").classes] == [*"klmnopqrst"]


def test_id2label_is_a_list_too_and_placeholders_are_none(tiny):
    change_json(tiny / "config.json", id2label=[*"abcdefghij"])
    assert [info.name for info in load_prior(str(tiny), vae="none").classes] == [*"abcdefghij"]
    change_json(tiny / "config.json", id2label={str(row): f"LABEL_{row}" for row in range(10)})
    assert load_prior(str(tiny), vae="none").classes[3].name == "class 3"


@pytest.mark.parametrize(
    ("id2label", "said"),
    [
        ([*"0123456789", "ten"], "lists 11 classes, its label table has 10; list them in"),
        (
            [*"abcdefghia"],
            "config.json: id2label: classes has 'a' twice; every row needs a name of its own; list",
        ),
        ({"0": "a", "2": "b"}, "row 1 is not there"),
        ("cat", "classes must be a list of names, or an object of them by row, not 'cat'"),
        ([*"abcdefghi", None], "row 9 is None"),
    ],
)
def test_an_id2label_that_does_not_fit_is_refused(id2label, said, tiny, refusal):
    change_json(tiny / "config.json", id2label=id2label)
    assert said in refusal(tiny, "--vae", "none")


def test_an_id2label_of_imagenet_gives_imagenets_classes(tmp_path):
    """As facebook/DiT-XL-2-256 has it: a thousand names without WordNet ids, "crane" and others among them twice."""
    own = imagenet_classes()
    by_row = {str(row): info.name for row, info in enumerate(own)}
    first = {row: name.split(",")[0].upper().replace(" ", "_") for row, name in by_row.items()}
    spelled = {row: f"the {name}" if int(row) % 20 == 0 else name for row, name in by_row.items()}
    for table in (by_row, [*by_row.values()], first, spelled, [info.wnid for info in own]):
        (tmp_path / "model_index.json").write_text(json.dumps({"id2label": table}))
        assert read_description(tmp_path).classes == own
    backwards = [info.wnid for info in reversed(own)]  # ImageNet's classes, but in other rows
    (tmp_path / "model_index.json").write_text(json.dumps({"id2label": backwards}))
    assert read_description(tmp_path).classes[0].identity == own[-1].wnid


# Paths.


@pytest.mark.parametrize("how", ["options", "description"])
def test_verify_finds_a_relative_prior_again_from_another_folder(how, pipeline, tmp_path, inline, monkeypatch):
    """Autoencoder and encoder, too."""
    (pipeline / "dmgd.json").write_text(json.dumps({"classes": ["a", "b", *"cdefghij"]}))
    (pipeline / "vae").rename(pipeline / "autoencoder")
    as_folder(tmp_path / "photos", pictures(("a", "b"), 4))
    monkeypatch.chdir(tmp_path)
    options = ["--vae", "pipeline/autoencoder", "--encoder", "pipeline/autoencoder"]
    if how == "description":
        change_json(pipeline / "dmgd.json", vae="autoencoder")
        options = []
    common = ["--source", "folder:photos", "--prior", "pipeline", *options]
    inline("fit-stats", *common, "--out", "stats.safetensors")
    inline("distill", *common, "--ipc", 1, "--method", "dmgd-paper", "--steps", 2, "--window", 0, 1, "--stats",
           "stats.safetensors", "--out", "run")  # fmt: skip
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    said = inline("verify", "../run", "--regenerate", 2).stdout
    assert "2 images regenerated" in said
