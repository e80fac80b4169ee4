"""Weights: downloading from the Hub, finding files, reading tensors, digests."""

import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor

from dmgd.errors import ArtifactError, UsageError, is_out_of_memory, listed
from dmgd.files import sha256_bytes, sha256_file
from dmgd.network import hub_reachable
from dmgd.priors.description import is_cached, is_weights, read_config
from dmgd.priors.pipelines import PIPELINES, pipeline_class

State = dict[str, Tensor]
STEM = "diffusion_pytorch_model"  # of the names that diffusers gives to weights
# What follows, in two ways for the index of an fp16 variant.
ENDINGS = (
    *(".safetensors", ".bin", ".safetensors.index.json", ".bin.index.json", ".fp16.safetensors", ".fp16.bin"),
    *(".safetensors.index.fp16.json", ".fp16.safetensors.index.json", ".bin.index.fp16.json"),
)


def fetch(hub_id: str, kind: str = "prior", revision: str | None = None, file: str | None = None) -> tuple[Path, str]:
    """The cached snapshot of a Hub model (a prior, vae, encoder or teacher), downloaded if needed, and its commit; or
    one `file` of it alone.

    Pickled weights (`.bin`) are downloaded only for a model that has no others. Of a text-to-image pipeline what
    diffusers itself would download for it.
    """
    from huggingface_hub import constants, hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )
    from huggingface_hub.utils import validate_repo_id

    def snapshot(*kinds: str) -> Path:
        patterns = [f"{part}*{kind}" for part in ("", "transformer/", "scheduler/", "vae/") for kind in kinds]
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))

    def pipeline() -> Path | None:
        try:
            index = Path(hf_hub_download(hub_id, "model_index.json", revision=revision))
        except EntryNotFoundError:
            return None
        if pipeline_class(index.parent) not in PIPELINES:
            return None
        from diffusers import DiffusionPipeline

        unused = dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"))
        return Path(DiffusionPipeline.download(hub_id, revision=revision, **unused))

    def unavailable(why: str) -> ArtifactError:
        return ArtifactError(
            f"the {kind} {hub_id!r} is not in the cache ({constants.HF_HUB_CACHE}) and the Hub cannot be reached or "
            f"has no such model ({why}); connect once, set HF_HOME to a cache that has it, or give "
            f"--{kind} the path of a local copy"
        )

    try:
        validate_repo_id(hub_id)
        if not is_cached(hub_id, file) and not hub_reachable():
            raise unavailable("no connection")
        if file:
            path = Path(hf_hub_download(hub_id, file, revision=revision))
            return path, path.parent.name
        if whole := pipeline():
            return whole, whole.name
        found = snapshot(".json", ".safetensors")
        folders = {config.parent for config in found.rglob("config.json")} or {found}
        if not all(any(folder.glob("*.safetensors")) for folder in folders):
            found = snapshot(".json", ".safetensors", ".bin")
    except HFValidationError as error:
        raise UsageError(f"the {kind} {hub_id} does not exist; give --{kind} a folder or a Hub id") from error
    except GatedRepoError as error:
        raise ArtifactError(
            f"the {kind} {hub_id!r} is given only to those who have agreed to its licence: do so at "
            f"{constants.ENDPOINT}/{hub_id}, and set HF_TOKEN"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise unavailable(type(error).__name__) from error
    return found, found.name


def weight_files(folder: Path, *stems: str) -> list[Path]:
    """The files with the weights in a folder of diffusers, or with other names that begin with one of `stems`: one, or
    the shards that an index lists, by name.

    Plain names come before those of the variant fp16, `.safetensors` before `.bin`, a whole file before shards.
    Raises ArtifactError if there is none, for an index that cannot be used, and for a missing shard.
    """
    names = [f"{stem}{ending}" for ending in ENDINGS for stem in stems or (STEM,)]
    for name in names:
        if (path := folder / name).is_file():
            return [path] if path.suffix != ".json" else _shards(path)
    raise ArtifactError(f"no weights in {folder}; expected {' or '.join(names[:3])}")


def _shards(index: Path) -> list[Path]:
    named = read_config(index).get("weight_map")
    if not (named and isinstance(named, dict) and all(isinstance(one, str) for one in named.values())):
        raise ArtifactError(f"{index} has no weight_map of tensors and their files")
    names = sorted(set(named.values()))
    if odd := [name for name in names if Path(name).name != name or not is_weights(Path(name))]:
        raise ArtifactError(f"{index} lists {listed([repr(one) for one in odd], 3)}, not weights in its folder")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise ArtifactError(
            f"{index.parent} lacks {len(missing)} of the {len(names)} shards that {index.name} lists: "
            f"{listed(missing, 3)}; copy or download it again"
        )
    return [index.parent / name for name in names]


def weights_digest(files: Sequence[Path]) -> str:
    """The SHA-256 of a file of weights; of several that of their digests in a row."""
    digests = [sha256_file(file) for file in files]
    return digests[0] if len(digests) == 1 else sha256_bytes("".join(digests).encode())


def read_weights(*files: Path) -> State:
    """The tensors of a file, or of all shards of a network; see `read_checkpoint`."""
    state: State = {}
    for file in files:
        own = read_checkpoint(file).state
        if twice := sorted(own.keys() & state.keys()):
            raise ArtifactError(f"{file} has tensors that another shard has, too: {listed(twice, 3)}")
        state |= own
    return state


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name and, where a training script stored them, its arguments."""

    state: State
    args: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """The content of a `.safetensors` file, or of a `.pt`, `.pth` or `.bin` file with tensors and plain values alone.

    In a training checkpoint as facebookresearch/DiT writes it, the state is that of its `ema` entry, or else of its
    model, and `args` may be an argparse.Namespace. The prefixes of DistributedDataParallel and torch.compile are
    removed where all names have them. Raises ArtifactError if the file is damaged, holds something else, or is a pickle
    that would run code.
    """
    content = _content(path)
    args = content.get("args") if isinstance(content, dict) else None
    args = vars(args) if isinstance(args, Namespace) else args
    if isinstance(content, dict):
        content = next((one for key in _NETWORKS if isinstance(one := content.get(key), dict)), content)
    if not content or not isinstance(content, dict) or not all(isinstance(one, Tensor) for one in content.values()):
        raise ArtifactError(f"{path} is not a file of plain tensors: it holds no state_dict; {_REMEDY}")
    # A copy, for a mapped tensor would change with its file.
    state = {str(name): tensor.clone() for name, tensor in content.items()}
    return Checkpoint(_without_wrappers(state), args if isinstance(args, dict) else {})


_NETWORKS = ("ema", "model", "state_dict", "model_state_dict", "net")  # entries of training checkpoints
_WRAPPERS = ("module.", "_orig_mod.")
_REMEDY = 'save the state_dict of its network (that of "ema", if it has one) as .safetensors'


def _content(path: Path) -> Any:
    """What a file holds, if tensors and plain values are all. No code in it is run."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # The optimizer's state, which is larger than the network, is not read where the file can be mapped.
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except Exception as error:  # both readers raise a dozen types for a damaged file, torch's with escape sequences
        if is_out_of_memory(error):
            raise
        if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ArtifactError(
                f"{path} holds a {refused[1]}: a pickle of more than tensors and plain values could run code and is "
                f"refused; {_REMEDY}"
            ) from error
        why = error.strerror if isinstance(error, OSError) and error.strerror else _damage(path)
        raise ArtifactError(f"{path} is not a file of plain tensors: {why}") from error


def _damage(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            return "it is a pointer of Git LFS in place of the weights; fetch them with git lfs pull"
    return f"it is damaged, incomplete or something else ({path.stat().st_size:,} bytes); copy or download it again"


_POINTER = b"version https://git-lfs"


def _without_wrappers(state: State) -> State:
    while prefix := next((one for one in _WRAPPERS if all(name.startswith(one) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
