"""A teacher's logits of the images of a set, or of views of them, in as few bytes as asked for."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray
from torch import Tensor

from dmgd.evaluation.augmentation import to_unit
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.teacher_network import TeacherNetwork
from dmgd.evaluation.views import Views
from dmgd.exporters.logits import Coding, decode, probabilities

BATCH = 64


def teachers_logits(
    teacher: TeacherNetwork,
    data: ImageSet,
    views: Views | None,
    coding: Coding,
    columns: list[int],
    temperatures: tuple[float, ...],
    on_images: Callable[[int], None] = lambda count: None,
) -> tuple[dict[str, ndarray], dict[str, dict[str, float]]]:
    """The coded logits of every image, (n, …), or of its views, (n, views, …), with the teacher's outputs at `columns`;
    and the error of the probabilities at each of the `temperatures`: the largest and the mean difference to those of
    the teacher. The teacher expects images in [0, 1] on its own device."""
    device = teacher.scale.device
    coded, errors = [], {temperature: [0.0, 0.0] for temperature in temperatures}
    numbers = range(views.count) if views else (None,)
    for view in numbers:
        parts = []
        for chosen in torch.arange(len(data)).split(BATCH):
            images = _seen(data, views, chosen, view).to(device)
            with torch.no_grad():
                logits = teacher(images).float().cpu().numpy()[:, columns]
            parts.append(coding.encode(logits))
            kept = decode(parts[-1], len(columns))
            for temperature, worst in errors.items():
                off = np.abs(probabilities(kept, temperature) - probabilities(logits, temperature))
                worst[:] = max(worst[0], float(off.max())), worst[1] + float(off.mean(1).sum())
            on_images(len(chosen))
        coded.append({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    count = len(data) * len(coded)
    stated = {f"{t:g}": {"largest": worst, "mean": total / count} for t, (worst, total) in errors.items()}
    if not views:
        return coded[0], stated
    return {name: np.stack([one[name] for one in coded], 1) for name in coded[0]}, stated


def _seen(data: ImageSet, views: Views | None, chosen: Int64[Tensor, " b"], view: int | None) -> Tensor:
    """What the teacher sees of the images at `chosen`, in [0, 1]."""
    if views is None or view is None:
        return to_unit(data.images[chosen])
    return views.of(data.images, chosen, view, lambda images: images)
