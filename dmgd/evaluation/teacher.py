"""Teachers, which give soft labels: a folder of `train-teacher`, a checkpoint, a Hub id, or an EfficientNet-Lite."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dmgd.classes.imagenet import imagenet_classes
from dmgd.classes.info import ClassInfo
from dmgd.classes.matching import candidates
from dmgd.errors import ArtifactError, DmgdError, MismatchError, UsageError, listed
from dmgd.evaluation.augmentation import dataset_statistics
from dmgd.evaluation.features import EFFICIENTNETS, efficientnet_network
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.networks import make_network
from dmgd.evaluation.protocols import Protocol
from dmgd.evaluation.teacher_folder import WEIGHTS, classes_of, is_teacher_folder, read_description
from dmgd.evaluation.teacher_network import TeacherNetwork
from dmgd.evaluation.validation import confusion_on, top1
from dmgd.files import sha256_file
from dmgd.priors.weights import State, fetch, read_weights

_PREFIXES = ("module.", "model.", "_orig_mod.")  # which training wrappers add to parameter names
_FILES = ("model.safetensors", "pytorch_model.bin")
NEAR_CHANCE = 1.5


@dataclass(frozen=True)
class TeacherModel:
    """The teacher `name` with the digest of its weights, and its `network`, frozen and in evaluation mode: images
    (b, c, h, w) → logits (b, k)."""

    name: str
    sha256: str
    network_name: str
    network: TeacherNetwork


def load_teacher(name: str, *, network: str, norm: str, num_classes: int, channels: int, size: int) -> TeacherModel:
    """The teacher from a checkpoint (safetensors, or a pickle of plain tensors) or a Hub id.

    Parameter names are torchvision's, after removing the prefixes of wrappers, and so is the normalisation of its
    input, ImageNet's. Raises MismatchError for another number
    of classes, ArtifactError if it cannot be read or is another network.
    """
    path = _locate(name)
    state = read_state(path)
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    head = next((state[key] for key in reversed(state) if key.endswith("weight") and state[key].ndim == 2), None)
    if head is not None and len(head) != num_classes:
        raise MismatchError(
            f"the teacher {name} has {len(head)} classes, the data have {num_classes}; "
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
    wrapped = TeacherNetwork(model, *dataset_statistics("imagenet", channels))
    return TeacherModel(name, sha256_file(path), network, wrapped.eval().requires_grad_(False))


def read_state(path: Path) -> State:
    """The tensors of a checkpoint by name. Raises ArtifactError for a damaged file or a pickle of other objects."""
    try:
        return read_weights(path)
    except ArtifactError as error:
        raise ArtifactError(f"the teacher cannot be read as weights: {error}") from error


def _locate(name: str) -> Path:
    """The checkpoint file of a path or Hub id. Raises UsageError for neither, ArtifactError for a failed download."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UsageError(
            f"the teacher {name} is neither a checkpoint file nor a Hub id; known are also {', '.join(EFFICIENTNETS)}, "
            "and folders of dmgd train-teacher"
        )
    folder, _ = fetch(name, "teacher")
    found = next((folder / file for file in _FILES if (folder / file).is_file()), None)
    if found is None:
        raise ArtifactError(f"the teacher {name!r} has no {' or '.join(_FILES)}; give --teacher a local file")
    return found


def open_teacher(name: str | None, protocol: Protocol, own: ImageSet) -> TeacherModel:
    """The teacher for the set's classes, in their order, and for its images as the protocol normalises them (by the
    set's own mean: images in [0, 1]).

    Raises UsageError if none is given, and as `teacher_of`.
    """
    if name is None:
        raise UsageError(f"the protocol {protocol.name!r} needs --teacher: a folder, a checkpoint or a Hub id")
    channels, size = own.images.shape[1], protocol.size or own.images.shape[-1]
    teacher = teacher_of(name, own.classes, channels, protocol, size)
    if protocol.normalisation == "own":
        return teacher
    return replace(teacher, network=teacher.network.given(*dataset_statistics(protocol.normalisation, channels)))


def teacher_of(name: str, classes: tuple[ClassInfo, ...], channels: int, protocol: Protocol, size: int) -> TeacherModel:
    """The teacher for these classes, in their order, and for images in [0, 1].

    `name` is a folder of `train-teacher`, an EfficientNet-Lite, or a checkpoint or Hub id of the protocol's network for
    images of this `size`. Raises MismatchError for another number of channels or missing classes, ArtifactError if it
    cannot be read.
    """
    if is_teacher_folder(Path(name).expanduser()):
        return _own_teacher(Path(name).expanduser(), classes, channels)
    if name in EFFICIENTNETS:
        return _imagenet_teacher(name, classes, channels)
    shape = {"num_classes": len(classes), "channels": channels, "size": size}
    return load_teacher(name, network=protocol.network, norm=protocol.norm, **shape)


def teacher_size(name: str) -> int | None:
    """The image size in pixels that the teacher was trained at; None for a checkpoint, which does not say."""
    folder = Path(name).expanduser()
    return read_description(folder)["size"] if is_teacher_folder(folder) else EFFICIENTNETS.get(name)


def _own_teacher(folder: Path, classes: tuple[ClassInfo, ...], channels: int) -> TeacherModel:
    """The teacher that was trained by `dmgd train-teacher`."""
    described = read_description(folder)
    _check_channels(str(folder), described["channels"], channels)
    own = classes_of(described)
    shape = {"num_classes": len(own), "channels": channels, "size": described["size"], "norm": described["norm"]}
    network = make_network(described["network"], **shape)
    network.load_state_dict(read_state(folder / WEIGHTS))
    wrapped = TeacherNetwork(
        network.eval(),
        described["mean"],
        described["std"],
        size=described["size"],
        columns=_columns(str(folder), own, classes),
    )
    return TeacherModel(str(folder), described["sha256"], described["network"], wrapped.eval().requires_grad_(False))


def _imagenet_teacher(name: str, classes: tuple[ClassInfo, ...], channels: int) -> TeacherModel:
    """An EfficientNet-Lite, restricted to those of ImageNet's classes that the set has."""
    _check_channels(name, 3, channels)
    columns = _columns(name, imagenet_classes(), classes)
    network, weights = efficientnet_network(name)
    wrapped = TeacherNetwork(network, (127 / 255,) * 3, (128 / 255,) * 3, size=EFFICIENTNETS[name], columns=columns)
    return TeacherModel(name, sha256_file(weights), name, wrapped.eval().requires_grad_(False))


def _check_channels(name: str, own: int, wanted: int) -> None:
    """Raise MismatchError if the teacher's images have other channels than the test images."""
    if own != wanted:
        kinds = {1: "grey", 3: "RGB"}
        raise MismatchError(
            f"the teacher {name} was trained on {kinds.get(own, own)} images, those of the data are "
            f"{kinds.get(wanted, wanted)}; give a teacher that was trained on such images"
        )


def _columns(name: str, own: tuple[ClassInfo, ...], wanted: tuple[ClassInfo, ...]) -> list[int]:
    """The teacher's output for each class that is wanted, by WordNet id or name. Raises MismatchError if one is missing
    or ambiguous."""
    rows = candidates(own, wanted)
    missing = [info.identity for info, found in zip(wanted, rows, strict=True) if len(found) != 1]
    if missing:
        raise MismatchError(
            f"the teacher {name} lacks {len(missing)} of the {len(wanted)} classes of the data: "
            f"{listed(missing)}; give a teacher that was trained on them: dmgd train-teacher"
        )
    return [found[0] for found in rows]


def check_teacher(teacher: TeacherModel, test: ImageSet, device: str) -> dict[str, Any]:
    """The teacher's identity and top-1 on the test images; its network is moved to the device. Raises DmgdError if the
    top-1 is below 1.5 times chance."""
    network = teacher.network.to(device)
    reached = top1(confusion_on(network.on_unit(), test, lambda images: images, device))
    chance = 100 / len(test.classes)
    if reached < NEAR_CHANCE * chance:
        raise DmgdError(
            f"the teacher {teacher.name} has {reached:.1f} % top-1 on the test images, chance is {chance:.1f} %; "
            "it may have another order of classes, or expect another image size or normalisation"
        )
    return {"name": teacher.name, "sha256": teacher.sha256, "network": teacher.network_name, "top1": round(reached, 3)}
