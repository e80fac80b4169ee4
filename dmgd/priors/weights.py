"""Weights: downloading from the Hub, finding files, reading tensors, digests."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from dmgd.errors import ArtifactError, UsageError
from dmgd.network import hub_reachable
from dmgd.priors.description import is_cached

State = dict[str, Tensor]
WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def fetch(hub_id: str, kind: str = "prior", revision: str | None = None) -> tuple[Path, str]:
    """The cached snapshot of a Hub model (a prior, vae, encoder or teacher), downloaded if needed, and its commit.

    Pickled weights (`.bin`) are downloaded only for a model that has no others.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    def snapshot(*kinds: str) -> Path:
        patterns = [f"{part}*{kind}" for part in ("", "transformer/", "scheduler/", "vae/") for kind in kinds]
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))

    def unavailable(why: str) -> ArtifactError:
        return ArtifactError(
            f"the {kind} {hub_id!r} is not in the cache ({constants.HF_HUB_CACHE}) and the Hub cannot be reached or "
            f"has no such model ({why}); connect once, set HF_HOME to a cache that has it, or give "
            f"--{kind} the path of a local copy"
        )

    try:
        validate_repo_id(hub_id)
        if not is_cached(hub_id) and not hub_reachable():
            raise unavailable("no connection")
        found = snapshot(".json", ".safetensors")
        folders = {config.parent for config in found.rglob("config.json")} or {found}
        if not all(any(folder.glob("*.safetensors")) for folder in folders):
            found = snapshot(".json", ".safetensors", ".bin")
    except HFValidationError as error:
        raise UsageError(f"the {kind} {hub_id} does not exist; give --{kind} a folder or a Hub id") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise unavailable(type(error).__name__) from error
    return found, found.name


def weight_file(folder: Path) -> Path:
    """The weights in a diffusers folder, all in one file. Raises ArtifactError if there is none."""
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise ArtifactError(f"no weights in {folder}; expected {' or '.join(WEIGHT_FILES)}")
    return path


def read_weights(path: Path) -> State:
    """The tensors of a `.safetensors` file, or of a `.pt`, `.pth` or `.bin` file with nothing but tensors.

    In a training checkpoint, the state is that of its `ema` entry, as in facebookresearch/DiT, or else of its model.
    Raises ArtifactError if the file is damaged, holds something else, or is a pickle that would run code.
    """
    try:
        is_safe = path.suffix == ".safetensors"
        state = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(state, dict):
            entries = (state.get(key) for key in ("ema", "model", "state_dict", "model_state_dict", "net"))
            state = next((entry for entry in entries if isinstance(entry, dict)), state)
        if not state or not isinstance(state, dict) or not all(isinstance(one, Tensor) for one in state.values()):
            raise TypeError("it holds no state_dict")
    except Exception as error:  # both readers raise a dozen types for a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise ArtifactError(
            f"{path} is not a file of plain tensors ({reason}); a pickle with other objects "
            "could run code and is refused: save its state_dict, best as .safetensors"
        ) from error
    return {str(name): tensor for name, tensor in state.items()}
