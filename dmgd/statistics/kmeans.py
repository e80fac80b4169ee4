"""Seeded, reproducible k-means: the support points of a class are the centroids of its latents."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Float, Float32, Float64
from numpy import ndarray
from threadpoolctl import threadpool_limits

from dmgd.errors import DmgdError
from dmgd.files import sha256_bytes


def quantize(
    latents: Float[ndarray, "n d"], num_points: int, seed: int
) -> tuple[Float32[ndarray, "k d"], Float64[ndarray, " k"]]:
    """The support points of one class and their masses, in order of decreasing mass; masses sum to 1.

    A class of fewer than `num_points` distinct latents has one point for each; the rest are zero vectors of mass 0. The
    result depends on the latents, their order and the seed, not on the number of threads.

    Raises DmgdError if there are no latents or some are not finite.
    """
    if len(latents) == 0:
        raise DmgdError("a class without images has no support points; remove the class or add images")
    if not np.isfinite(latents).all():
        raise DmgdError("the latents hold NaN or infinite values; check the prior's encoder and its precision")
    with reproducible():
        from sklearn.cluster import KMeans

        means = KMeans(min(num_points, len(latents)), n_init=4, random_state=seed).fit(latents)
    labels, counts = np.unique(means.labels_, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    support = np.zeros((num_points, latents.shape[1]), np.float32)
    mass = np.zeros(num_points)
    # Means of the members: scikit-learn's centres are off by its tolerance, and more with duplicate latents.
    centres = np.stack([latents[means.labels_ == label].mean(0, dtype=np.float64) for label in labels])
    support[: len(labels)] = centres[order]
    mass[: len(labels)] = counts[order] / len(latents)
    return support, mass


@contextmanager
def reproducible() -> Iterator[None]:
    """Run k-means on one thread, as threads would add up sums in varying order and change the last bits; and silence
    its warning about fewer distinct latents than points, which `quantize` handles."""
    import sklearn.cluster  # slow to import, and before the limit, which is for libraries that are loaded

    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        yield


def quantization_error(latents: Float[ndarray, "n d"], support: Float[ndarray, "k d"]) -> float:
    """W₂² between the latents and the support points, weighted by their members: the mean squared distance of a latent
    to its nearest point. All points in `support` have mass."""
    nearest = np.argmin((support.astype(np.float64) ** 2).sum(1) - 2.0 * (latents @ support.T), axis=1)
    total = 0.0
    for index, point in enumerate(support):  # differences, not the expanded square: exact for near-equal points
        own = latents[nearest == index] - point
        total += float(np.einsum("nd,nd->n", own, own).sum(dtype=np.float64))
    return total / len(latents)


def class_seed(seed: int, identity: str) -> int:
    """A 32-bit seed for one class, independent of other classes and their order."""
    return int(sha256_bytes(f"{seed}/{identity}".encode())[:8], 16)
