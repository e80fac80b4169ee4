"""SiT and REPA: flows with DiT's tensors. Their forward passes, how they are told apart, and where they come from."""

import dataclasses
import json
import math
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from hub_server import commit_of, downloading
from safetensors.torch import save_file
from source_stand_ins import as_folder, pictures
from torch.nn import functional as F

from dmgd.diffusion.condition import Condition
from dmgd.diffusion.guidance import Guidance
from dmgd.diffusion.process import Diffusion, Flow
from dmgd.errors import DmgdError
from dmgd.exporters.command import distill_command
from dmgd.generation.config import DistillConfig
from dmgd.priors.known import prior_arrival
from dmgd.priors.load import load_prior
from dmgd.specs import PriorSpec, SourceSpec

WIDTH, HEADS, SIDE, CLASSES = 48, 4, 8, 10
SIT = {"model": "SiT-XL/2", "path_type": "Linear", "prediction": "velocity", "loss_weight": None}
REPA = {"model": "SiT-XL/2", "path_type": "linear", "prediction": "v", "encoder_depth": 8, "proj_coeff": 0.5}
AS_SIT, AS_REPA = Flow(time_scale=1.0, from_noise=True), Flow(time_scale=1.0)


def positions(width):
    """The sine–cosine table of a 4×4 grid, the column in the first half."""
    table = torch.zeros(1, 16, width)
    for patch in range(16):
        for half, place in enumerate((patch % 4, patch // 4)):
            for i in range(width // 4):
                angle = place / 10_000 ** (i / (width / 4))
                table[0, patch, half * width // 2 + i] = math.sin(angle)
                table[0, patch, half * width // 2 + width // 4 + i] = math.cos(angle)
    return table


def checkpoint(channels_out, width=WIDTH, heads=HEADS, depth=2, classes=CLASSES, qk_norm=False, projectors=False):
    """The tensors of a SiT with random numbers, in the names of the published models."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"x_embedder.proj.weight": (width, 4, 2, 2), "y_embedder.embedding_table.weight": (classes + 1, width)}
    linear = {"t_embedder.mlp.0": (width, 256), "t_embedder.mlp.2": (width, width)}
    linear |= {"final_layer.linear": (4 * channels_out, width)}
    linear |= {"final_layer.adaLN_modulation.1": (2 * width, width)}
    for block in (f"blocks.{i}" for i in range(depth)):
        linear |= {f"{block}.attn.qkv": (3 * width, width), f"{block}.attn.proj": (width, width)}
        linear |= {f"{block}.mlp.fc1": (4 * width, width), f"{block}.mlp.fc2": (width, 4 * width)}
        linear |= {f"{block}.adaLN_modulation.1": (6 * width, width)}
        if qk_norm:
            names = (f"{block}.attn.{one}_norm.{kind}" for one in "qk" for kind in ("weight", "bias"))
            shapes |= dict.fromkeys(names, (width // heads,))
    linear |= {"projectors.0.0": (64, width), "projectors.0.4": (32, 64)} if projectors else {}
    shapes |= {f"{name}.weight": shape for name, shape in linear.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linear.items()} | {"x_embedder.proj.bias": (width,)}
    state = {name: torch.randn(shape, generator=draw) / shape[-1] ** 0.5 for name, shape in shapes.items()}
    return {**state, "pos_embed": positions(width)}


def forward(state, x, t, y, heads=HEADS):
    """The published forward pass, plainly: `SiT.forward` of willisma/SiT before it drops the second half of the
    channels, and of sihyun-yu/REPA; `Attention` of timm with its norm of queries and keys."""

    def linear(name, value):
        return value @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(value, prefix=None):
        value = (value - value.mean(-1, keepdim=True)) / (
            value.var(-1, keepdim=True, unbiased=False) + (1e-5 if prefix else 1e-6)
        ).sqrt()
        return value * state[f"{prefix}.weight"] + state[f"{prefix}.bias"] if prefix else value

    def attention(block, value):
        b, n, width = value.shape
        q, k, v = linear(f"{block}.attn.qkv", value).reshape(b, n, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        if f"{block}.attn.q_norm.weight" in state:
            q, k = norm(q, f"{block}.attn.q_norm"), norm(k, f"{block}.attn.k_norm")
        weights = (q @ k.transpose(-2, -1) / (width // heads) ** 0.5).softmax(-1)
        return linear(f"{block}.attn.proj", (weights @ v).transpose(1, 2).reshape(b, n, width))

    frequencies = torch.exp(-math.log(10_000) * torch.arange(128) / 128)
    wave = torch.cat([torch.cos(t * frequencies), torch.sin(t * frequencies)])
    time = linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", wave)))
    c = F.silu(time + state["y_embedder.embedding_table.weight"][y])[:, None]
    patches = x.reshape(len(x), 4, 4, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(len(x), 16, 16)
    h = patches @ state["x_embedder.proj.weight"].flatten(1).T + state["x_embedder.proj.bias"] + state["pos_embed"]
    for block in sorted({name[: name.index(".", 7)] for name in state if name.startswith("blocks.")}):
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = linear(f"{block}.adaLN_modulation.1", c).chunk(6, -1)
        h = h + gate_a * attention(block, norm(h) * (1 + scale_a) + shift_a)
        inner = F.gelu(linear(f"{block}.mlp.fc1", norm(h) * (1 + scale_m) + shift_m), approximate="tanh")
        h = h + gate_m * linear(f"{block}.mlp.fc2", inner)
    shift, scale = linear("final_layer.adaLN_modulation.1", c).chunk(2, -1)
    out = linear("final_layer.linear", norm(h) * (1 + scale) + shift)
    return torch.einsum("nhwpqc->nchpwq", out.reshape(len(x), 4, 4, 2, 2, -1)).reshape(len(x), -1, 8, 8)


def saved(path, state, args=None, **described):
    """A checkpoint as a training script writes it, or the tensors alone, and its description."""
    path.with_suffix(".dmgd.json").write_text(json.dumps({"num_heads": HEADS, **described}))
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"ema": state, "args": Namespace(**args), "steps": 7} if args else state, path)
    return path


KINDS = {
    "SiT": (SIT, {"channels_out": 8}),
    "SiT, trained without further channels": (SIT, {"channels_out": 4}),
    "SiT, GVP": (SIT | {"path_type": "GVP"}, {"channels_out": 8}),
    "REPA": (REPA, {"channels_out": 4, "projectors": True}),
    "REPA, norm of queries and keys": (REPA, {"channels_out": 4, "projectors": True, "qk_norm": True}),
    "REPA, cosine": (REPA | {"path_type": "cosine"}, {"channels_out": 4, "projectors": True}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_predicts_what_the_published_forward_pass_does(kind, tmp_path):
    """The velocity of the network, and the x_0 of the prior with guidance, at a point of the flow's own path."""
    args, shape = KINDS[kind]
    state = checkpoint(**shape)
    prior = load_prior(saved(tmp_path / "0400000.pt", state, args), vae="none", device="cpu")
    x, y = torch.randn(2, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 7])
    rows, null = (Condition({"label": prior.network.label_embedding(one)}) for one in (y, torch.full((2,), CLASSES)))
    for k in (19, 10, 0):
        step = prior.schedule(20, "ddpm")[k]
        s = (k + 1) / 20
        t = 1 - s if kind.startswith("SiT") else s
        assert step.timestep == pytest.approx(t, abs=1e-12)
        is_linear = args["path_type"].lower() == "linear"
        a, b = (1 - s, s) if is_linear else (math.cos(math.pi / 2 * s), math.sin(math.pi / 2 * s))
        with torch.no_grad():
            own, other = (forward(state, x, t, classes) for classes in (y, torch.full((2,), CLASSES)))
            torch.testing.assert_close(prior.network(x, t, rows.embeddings["label"]), own, rtol=1e-5, atol=1e-5)
            guidance = Guidance(4.0, prior.defaults.guided_channels)
            found, log_variance = guidance.denoised(prior.denoise, x / math.hypot(a, b), step, rows, null)
        guided = 3 if kind.startswith("SiT") else 4  # channels
        velocity = own[:, :4].clone()
        velocity[:, :guided] = (other + 4.0 * (own - other))[:, :guided]
        if kind.startswith("SiT"):
            velocity = -velocity
        # dx/ds = a′ x_0 + b′ ε and x = a x_0 + b ε, solved for x_0
        da, db = (-1.0, 1.0) if is_linear else (-math.pi / 2 * b, math.pi / 2 * a)
        clean = (db * x - b * velocity) / (db * a - b * da)
        torch.testing.assert_close(found, clean, rtol=1e-4, atol=1e-4)
        assert log_variance is None


def test_the_guidance_is_that_of_the_published_scripts(tmp_path):
    sit = load_prior(saved(tmp_path / "sit.pt", checkpoint(8), SIT), vae="none")
    repa = load_prior(saved(tmp_path / "repa.pt", checkpoint(4), REPA), vae="none")
    assert (sit.defaults.guidance_scale, sit.defaults.guided_channels) == (4.0, 3)
    assert (repa.defaults.guidance_scale, repa.defaults.guided_channels) == (1.5, None)
    own = load_prior(saved(tmp_path / "sit.pt", checkpoint(8), SIT, guidance_scale=2.0, guided_channels=4), vae="none")
    assert (own.defaults.guidance_scale, own.defaults.guided_channels) == (2.0, 4)


# Which of the three it is.

TOLD = [  # file, arguments of the script, description, --prior-type, further shape, what it is
    ("a.pt", SIT, {}, None, {}, AS_SIT),
    ("a.pt", SIT | {"path_type": "GVP"}, {}, "sit", {}, Flow("cosine", time_scale=1.0, from_noise=True)),
    ("a.pt", REPA, {}, None, {}, AS_REPA),
    ("a.pt", REPA | {"path_type": "cosine"}, {}, None, {}, Flow("cosine", time_scale=1.0)),
    ("a.pt", {"model": "DiT-XL/2"}, {}, None, {}, Diffusion()),
    ("a.pt", None, {"prior_type": "sit"}, None, {}, AS_SIT),
    ("a.pt", None, {}, "repa", {}, AS_REPA),
    ("a.safetensors", None, {}, "dit", {}, Diffusion()),
    ("a.safetensors", None, {}, None, {"projectors": True}, AS_REPA),
    ("SiT-XL-2-256.pt", None, {}, None, {}, AS_SIT),
    ("SiT-XL-2-256x256.safetensors", None, {}, None, {}, AS_SIT),
    ("DiT-XL-2-256x256.pt", None, {}, None, {}, Diffusion()),
    ("SiT-XL-2-256x256.pt", None, {}, None, {"projectors": True, "channels_out": 4}, AS_REPA),
]


@pytest.mark.parametrize(("file", "args", "described", "option", "shape", "process"), TOLD)
def test_the_type_is_told_by_arguments_description_option_tensors_or_published_name(
    file, args, described, option, shape, process, tmp_path
):
    path = saved(tmp_path / file, checkpoint(**{"channels_out": 8, **shape}), args, **described)
    prior = load_prior(path, vae="none", prior_type=option)
    assert prior.process == process
    assert prior.settings()["diffusion"] == dataclasses.asdict(process)  # as runs record it


ASKED = "may be a DiT, SiT or REPA: their tensors are alike"
REFUSED = [  # file, arguments, description, option, shape, exit code, what is said
    ("a.pt", None, {}, None, {}, 2, ASKED),
    ("a.pt", None, {}, None, {"channels_out": 4}, 2, ASKED),
    ("SiT-XL-2-256-REPA.pt", None, {}, None, {}, 2, ASKED),
    ("SiT-XL-2-256x256.pt", None, {}, None, {"channels_out": 4}, 2, ASKED),  # REPA's, too, is called that
    ("a.pt", {"model": "SiT-XL/2"}, {}, None, {}, 2, ASKED),
    ("a.pt", {"model": "DiT-XL/2", "path_type": "Linear"}, {}, None, {}, 2, ASKED),
    ("a.pt", {"model": ["SiT"], "path_type": ["Linear"]}, {}, None, {}, 2, ASKED),
    ("a.pt", None, {}, "dti", {}, 2, "unknown prior type 'dti'; did you mean 'dit'?"),
    ("a.pt", SIT, {}, "dit", {}, 2, "dit by --prior-type, but sit by its training arguments (path_type Linear)"),
    ("a.pt", None, {"prior_type": "repa"}, "sit", {}, 2, "sit by --prior-type, but repa by its description"),
    ("a.pt", SIT | {"path_type": "VP"}, {}, None, {}, 1, "path_type 'VP', which is not supported; of sit priors only"),
    ("a.pt", SIT | {"prediction": "score"}, {}, None, {}, 1, "prediction 'score', which is not supported"),
    ("a.pt", REPA | {"prediction": "x"}, {}, None, {}, 1, "prediction 'x', which is not supported"),
    ("a.pt", {"path_type": ["x"]}, {}, "sit", {}, 1, "path_type ['x'], which is not supported"),
]


@pytest.mark.parametrize(("file", "args", "described", "option", "shape", "code", "said"), REFUSED)
def test_a_doubtful_type_is_asked_about_and_an_unsupported_one_refused(
    file, args, described, option, shape, code, said, tmp_path, inline
):
    path = saved(tmp_path / file, checkpoint(**{"channels_out": 8, **shape}), args, **described)
    options = ["--prior-type", option] if option else []
    command = ("fit-stats", "--source", "digits", "--prior", path, "--vae", "none", "--out", tmp_path / "s", *options)
    error = inline(*command, code=code).stderr
    assert said in error
    assert error.count("\n") == 1
    if said == ASKED:
        assert f'say --prior-type dit, sit or repa, or "prior_type" in {path.with_suffix(".dmgd.json")}' in error


def flow_folder(golden, folder, scheduler=None, **described):
    """The tiny DiT as a pipeline of diffusers, with a scheduler and a description."""
    shutil.copytree(golden / "dit-tiny-diffusers", folder / "transformer")
    (folder / "dmgd.json").write_text(json.dumps(described))
    if scheduler:
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}


@pytest.mark.parametrize(
    ("scheduler", "described", "process"),
    [
        (None, {}, Diffusion()),
        ({"_class_name": "DDIMScheduler"}, {}, Diffusion()),
        (None, {"prior_type": "sit"}, AS_SIT),
        (None, {"prior_type": "repa"}, AS_REPA),
        (EULER, {"prior_type": "sit"}, dataclasses.replace(AS_SIT, shift=3.0)),
        (EULER, {"prior_type": "repa"}, dataclasses.replace(AS_REPA, shift=3.0)),
        (EULER, {"prior_type": "dit"}, Flow(shift=3.0)),  # as diffusers itself counts the time of a flow
        (EULER, {"numerics": "diffusers"}, Flow(shift=3.0)),
        (EULER, {}, ASKED),
        (
            {"_class_name": "DDIMScheduler"},
            {"prior_type": "sit"},
            "is sit by its description, but dit by its scheduler",
        ),
    ],
)
def test_a_folder_of_diffusers_is_a_flow_by_its_description_and_scheduler(
    scheduler, described, process, tmp_path, golden
):
    folder = flow_folder(golden, tmp_path / "prior", scheduler, **described)
    if not isinstance(process, str):
        assert load_prior(folder, vae="none").process == process
    else:
        with pytest.raises(DmgdError, match=process):
            load_prior(folder, vae="none")


def test_a_pipeline_of_custom_code_is_refused_and_its_weights_can_be_given(tmp_path, inline):
    """As BiliSakura/SiT-diffusers: SiT's own tensors beside a class of its own. Nothing in the folder is run."""
    folder = tmp_path / "custom" / "transformer"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"_class_name": "SiTTransformer2DModel", "hidden_size": 48}))
    (folder / "transformer_sit.py").write_text("raise SystemExit('it was run')")
    weights = saved(folder / "diffusion_pytorch_model.safetensors", checkpoint(8))
    command = ("fit-stats", "--source", "digits", "--vae", "none", "--out", tmp_path / "s", "--prior")
    error = inline(*command, folder.parent, code=1).stderr
    assert "the code of a SiTTransformer2DModel is not run" in error
    assert "give their file as --prior, with --prior-type and --vae" in error
    assert load_prior(weights, vae="none", prior_type="sit").process == AS_SIT


def test_a_type_is_refused_where_it_has_no_effect(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(DmgdError, match=r"--prior-type has no effect: the prior .* is told classes by prompts"):
        load_prior(tmp_path, prior_type="sit")
    with pytest.raises(DmgdError, match="sit by --prior-type, but dit by its description"):
        load_prior("digits", prior_type="sit")


# From the command line, and from the Hub.


def test_a_sit_goes_the_whole_way(tmp_path, pipeline, inline):
    """Its type is in its training arguments; it has the width of a published one, and so its heads."""
    labels = ("a", "b")
    root = as_folder(tmp_path / "photos" / "train", pictures(labels, 4)).parent
    as_folder(root / "val", pictures(labels, 3, seed=1))
    state = checkpoint(8, width=384, heads=6, depth=1, classes=2)
    path = saved(tmp_path / "0400000.pt", state, SIT, num_heads=None, classes=[*labels], vae="pipeline/vae")
    run, out = tmp_path / "run", tmp_path / "out"
    common = ("--source", f"folder:{root}", "--prior", path)
    inline("distill", *common, "--prior-type", "sit", "--ipc", 2, "--steps", 4, "--out", run)
    inline("export", run, "--format", "imagefolder", "--out", out)
    assert "--prior-type sit" in (out / "README.md").read_text()
    measured = inline("evaluate", out, *common, "--network", "probe", "--repeats", 1, "--json")
    assert json.loads(measured.stdout)
    assert "2 images regenerated" in inline("verify", run, "--regenerate", 2).stdout
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["specs"]["prior"]["prior_type"] == "sit"
    assert manifest["prior"]["diffusion"] == dataclasses.asdict(AS_SIT)
    assert manifest["plan"]["method"]["guided_channels"] == 3


def test_the_type_is_part_of_the_command_that_reproduces_a_run_only_if_it_was_given():
    specs = SourceSpec("digits"), PriorSpec("weights.pt", prior_type="repa")
    assert "--prior weights.pt --prior-type repa" in distill_command(DistillConfig(), *specs)
    assert "--prior-type" not in distill_command(DistillConfig(), specs[0], PriorSpec("weights.pt"))


@pytest.fixture
def on_the_hub(tmp_path, monkeypatch, pipeline):
    """A fake Hub with a stand-in of SiT-S/2 and its autoencoder."""
    checkpoint_file = tmp_path / "s.pt"
    torch.save(checkpoint(8, width=384, heads=6, depth=1), checkpoint_file)
    vae = {file.name: file.read_bytes() for file in (pipeline / "vae").iterdir()}
    with downloading(monkeypatch, tmp_path) as hub:
        hub.repos["nyu-visionx/SiT-collections", "main"] = {
            "SiT-S-2-256.pt": checkpoint_file.read_bytes(),
            "SiT-XL-2-256.pt": b"not downloaded",
        }
        hub.repos["stabilityai/sd-vae-ft-ema", "main"] = vae
        yield hub


def test_a_published_sit_is_one_file_of_a_model_on_the_hub(on_the_hub, tmp_path, monkeypatch):
    spec = PriorSpec("sit-s-2-256")
    arrival = prior_arrival(spec)
    assert arrival.origin == "0.5 GB from the Hub (nyu-visionx/SiT-collections); MIT"
    prior = load_prior(spec, device="cpu")
    assert (prior.process, prior.identity.id, prior.defaults.guided_channels) == (AS_SIT, "sit-s-2-256", 3)
    assert prior.decode(torch.zeros(1, *prior.latent_shape)).shape == (1, 16, 16, 3)
    files = [path.name for path in Path(tmp_path / "hub").rglob("*.pt")]
    assert files == ["SiT-S-2-256.pt"]
    assert prior.spec.revision == commit_of("nyu-visionx/SiT-collections", "main")
    assert prior_arrival(spec).origin == "in the cache; MIT"
    assert "from the Hub" in prior_arrival(PriorSpec("sit-b-2-256")).origin  # another file of the same model
    (tmp_path / "hub" / "models--stabilityai--sd-vae-ft-ema").rename(tmp_path / "vae")
    assert "from the Hub" in prior_arrival(spec).origin  # it needs its autoencoder, too
    (tmp_path / "vae").rename(tmp_path / "hub" / "models--stabilityai--sd-vae-ft-ema")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    on_the_hub.repos.clear()
    again = load_prior(spec, device="cpu")
    assert (again.identity, again.spec.revision) == (prior.identity, prior.spec.revision)
    with pytest.raises(DmgdError, match=r"the prior 'nyu-visionx/SiT-collections' is not in the cache"):
        load_prior("sit-b-2-256")
    with pytest.raises(DmgdError, match=r"several priors; give --prior sit-xl-2-256, sit-l-2-256"):
        load_prior("nyu-visionx/SiT-collections")


def test_a_file_that_the_hub_does_not_have_is_named(on_the_hub):
    with pytest.raises(DmgdError, match=r"SiT-collections' is not in the cache .* \(\w*EntryNotFoundError\)"):
        load_prior("sit-b-2-256")
