"""The teacher of the soft-label protocol: a trained ResNet, from a local file or the Hub."""

import struct
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dmgd.errors import ArtifactError, MismatchError, UsageError
from dmgd.evaluation.networks import make_network
from dmgd.files import sha256_file

_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
_PREFIXES = ("module.", "model.", "_orig_mod.")
_DAMAGED = (struct.error, IndexError, KeyError, ValueError, TypeError)  # what unpickling makes of random bytes
_FILES = ("model.safetensors", "pytorch_model.bin")


class TeacherModel:
    """A frozen network in evaluation mode, and where it came from."""

    def __init__(self, name: str, sha256: str, network_name: str, network: nn.Module):
        self.name, self.sha256, self.network_name = name, sha256, network_name
        self._network = network.eval().requires_grad_(False)

    def on(self, device: torch.device | str) -> "FrozenTeacher":
        """The network on a device, which stays in evaluation mode."""
        return FrozenTeacher(self._network.to(device))


class FrozenTeacher(nn.Module):
    """Logits for normalised images, without gradients, always in evaluation mode."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def train(self, mode: bool = True) -> "FrozenTeacher":
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        return self.network(images)


def load_teacher(name: str, *, network: str, norm: str, num_classes: int, channels: int, size: int) -> TeacherModel:
    """The teacher from a checkpoint (safetensors, or a pickle of tensors alone) or a Hub id.

    Parameter names are torchvision's; the prefixes of wrappers are taken off. Raises MismatchError if it has another
    number of classes, ArtifactError if it cannot be read or is another network.
    """
    path = _locate(name)
    state = _clean(read_state(path))
    head = next((state[key] for key in reversed(state) if key.endswith("weight") and state[key].ndim == 2), None)
    if head is not None and len(head) != num_classes:
        raise MismatchError(
            f"the teacher {name} knows {len(head)} classes, the test source has {num_classes}; "
            "give a teacher that was trained on these classes"
        )
    model = make_network(network, num_classes=num_classes, channels=channels, size=size, norm=norm)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ArtifactError(
            f"the teacher {name} is not a {network} with {norm} norm for {channels}×{size}×{size} images "
            f"({str(error).splitlines()[-1].strip()[:150]}); give --network as it was trained"
        ) from error
    return TeacherModel(name, sha256_file(path), network, model)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name. Raises ArtifactError for a damaged file or a pickle of other things."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, OSError, *_DAMAGED) as error:
        raise ArtifactError(
            f"the teacher {path} cannot be read as weights ({str(error).splitlines()[0][:150]}); "
            "save its state_dict as safetensors or with torch.save"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ArtifactError(f"the teacher {path} holds no state_dict; save model.state_dict()")
    return content


def _clean(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _locate(name: str) -> Path:
    """The checkpoint file of a path or a Hub id. Raises UsageError for neither, ArtifactError if it cannot be had."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UsageError(f"the teacher {name} is neither a checkpoint file nor a Hub id")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    for file in _FILES:
        try:
            return Path(hf_hub_download(name, file))
        except LocalEntryNotFoundError:
            continue
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, OSError) as error:
            raise ArtifactError(f"the teacher {name!r} cannot be fetched ({type(error).__name__})") from error
    raise ArtifactError(
        f"the teacher {name!r} has no {' or '.join(_FILES)} in the cache, and the Hub cannot be reached or has none; "
        "connect once, or give --teacher a local file"
    )
