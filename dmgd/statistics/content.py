"""Whether statistics belong to a source, by a digest of the pixels that the encoder gets."""

import math
from pathlib import Path

from platformdirs import user_cache_path

from dmgd.errors import ArtifactError, MismatchError
from dmgd.files import read_sealed, sha256_bytes, write_sealed
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT, Progress
from dmgd.sources.decode import decoded_chunks
from dmgd.sources.source import Source
from dmgd.statistics.cache import content_digest, warn_of_cache
from dmgd.statistics.file import Statistics
from dmgd.statistics.untrained import UntrainedNetworks

FORMAT = 1


def check_statistics(
    statistics: Statistics, source: Source, prior: Prior, k: int | None, *, progress: Progress = SILENT
) -> None:
    """Raise MismatchError, saying what differs, unless the statistics belong to this source, prior and k (None: any).

    If the source was never encoded on this machine, its images are read once for that.
    """
    found = statistics.header
    if found["prior"]["digest"] != prior.identity.digest:
        raise _other("prior", found["prior"]["id"], prior.identity.id)
    encoder = found["encoder"]
    if prior.encoder and encoder["digest"] != prior.encoder.digest:
        raise _other("encoder", encoder["id"], prior.encoder.id)
    if not encoder["approximate"] and encoder["config"] != prior.codec.config:
        raise _other("configuration of the autoencoder", encoder["id"], prior.identity.id)
    if k is not None and found["k"] != k:
        raise _other("k", found["k"], k)
    shapes = (statistics.support.shape[2], *statistics.features.shape[1:])
    if shapes != (own := (math.prod(prior.latent_shape), *UntrainedNetworks(prior.latent_shape).means_shape)):
        raise _other("shape of latents and features", shapes, own)
    identities = [info.identity for info in statistics.classes]
    if identities != [info.identity for info in source.classes] or (
        found["source"]["fingerprint"] != source_content(source, prior, progress=progress)
    ):
        raise _other("source", found["source"]["name"], source.name)


def _other(what: str, found: object, wanted: object) -> MismatchError:
    return MismatchError(
        f"the statistics are of another {what} ({found}, not this {wanted}); "
        "fit them again with dmgd fit-stats, or leave --stats out"
    )


def source_content(source: Source, prior: Prior, *, progress: Progress = SILENT) -> str:
    """The digest of the training images, as pixels that the prior's encoder gets, and their classes; cached."""
    path = _content_path(source, prior)
    try:
        if path.is_file():
            missing = ArtifactError(f"{path} is missing")
            return str(read_sealed(path, FORMAT, missing=missing, remedy="the images are read again")["content"])
    except ArtifactError as error:
        progress.warn(str(error))
    except OSError:
        pass  # that it cannot be written, either, is said below
    digests: list[list[bytes]] = [[] for _ in source.classes]
    with progress.task("compare images", None, "images") as task:
        for chunk in decoded_chunks(source.images("train"), prior.image_size, prior.image_channels):
            for label, digest in zip(chunk.labels, chunk.digests, strict=True):
                digests[label].append(digest)
            task.advance(chunk.size)
    content = content_digest([info.identity for info in source.classes], digests)
    try:
        remember_content(source, prior, content)
    except OSError as error:
        warn_of_cache(error, progress)
    return content


def remember_content(source: Source, prior: Prior, content: str) -> None:
    """Store the digest of the source's images in the cache for `source_content`."""
    write_sealed(_content_path(source, prior), {"format": FORMAT, "content": content})


def _content_path(source: Source, prior: Prior) -> Path:
    size = f"{prior.image_size}x{prior.image_channels}"
    digest = sha256_bytes(source.fingerprint("train").encode())[:32]
    return user_cache_path("dmgd") / "content" / f"{digest}-{size}.json"
