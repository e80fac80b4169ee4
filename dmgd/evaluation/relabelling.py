"""A teacher's logits of the images of a set, or of views of them, in as few bytes as asked for."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray
from torch import Tensor

from dmgd.evaluation.augmentation import to_unit
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.label_parts import Labelled, LabelParts
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
    kept: LabelParts | None = None,
) -> tuple[dict[str, ndarray], dict[str, dict[str, float]]]:
    """The coded logits of every image, (n, …), or of its views, (n, views, …), with the teacher's outputs at `columns`;
    and the error of the probabilities at each of the `temperatures`: the largest and the mean difference to those of
    the teacher. The teacher expects images in [0, 1] on its own device. What is in `kept` is not computed
    again, and what is new goes there."""
    device = teacher.scale.device
    labelled = kept.read(temperatures) if kept else Labelled([], {f"{t:g}": [0.0, 0.0] for t in temperatures})
    done, row = labelled.rows, 0
    on_images(done)
    numbers = range(views.count) if views else (None,)
    for view, chosen in ((view, chosen) for view in numbers for chosen in torch.arange(len(data)).split(BATCH)):
        if (row := row + len(chosen)) <= done:
            continue
        images = _seen(data, views, chosen, view).to(device)
        with torch.no_grad():
            logits = teacher(images).float().cpu().numpy()[:, columns]
        labelled.parts.append(coding.encode(logits))
        stored = decode(labelled.parts[-1], len(columns))
        for temperature in dict.fromkeys(temperatures):
            off = np.abs(probabilities(stored, temperature) - probabilities(logits, temperature))
            worst = labelled.errors[f"{temperature:g}"]
            worst[:] = max(worst[0], float(off.max())), worst[1] + float(off.mean(1).sum())
        on_images(len(chosen))
        if kept:
            kept.keep(labelled)
    stated = {t: {"largest": worst, "mean": total / row} for t, (worst, total) in labelled.errors.items()}
    coded = labelled.whole()
    if not views:
        return coded, stated
    return {
        name: one.reshape(views.count, len(data), *one.shape[1:]).swapaxes(0, 1) for name, one in coded.items()
    }, stated


def _seen(data: ImageSet, views: Views | None, chosen: Int64[Tensor, " b"], view: int | None) -> Tensor:
    """What the teacher sees of the images at `chosen`, in [0, 1]."""
    if views is None or view is None:
        return to_unit(data.images[chosen])
    return views.of(data.images, chosen, view, lambda images: images)
