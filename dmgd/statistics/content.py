"""Whether statistics belong to a source, by a digest of the pixels that the encoder gets."""

from pathlib import Path

from platformdirs import user_cache_path

from dmgd.errors import MismatchError
from dmgd.files import load_json, write_json
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT, Progress
from dmgd.sources.decode import decoded_chunks
from dmgd.sources.source import Source
from dmgd.statistics.cache import content_digest
from dmgd.statistics.file import Statistics


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
        return str(load_json(path)["content"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there yet, or damaged
    digests: list[list[bytes]] = [[] for _ in source.classes]
    with progress.task("compare images", None, "images") as task:
        for chunk in decoded_chunks(source.images("train"), prior.image_size, prior.image_channels):
            for label, digest in zip(chunk.labels, chunk.digests, strict=True):
                digests[label].append(digest)
            task.advance(chunk.size)
    content = content_digest([info.identity for info in source.classes], digests)
    remember_content(source, prior, content)
    return content


def remember_content(source: Source, prior: Prior, content: str) -> None:
    """Store the digest of the source's images in the cache for `source_content`."""
    write_json(_content_path(source, prior), {"content": content})


def _content_path(source: Source, prior: Prior) -> Path:
    size = f"{prior.image_size}x{prior.image_channels}"
    return user_cache_path("dmgd") / "content" / f"{source.fingerprint('train')[:32]}-{size}.json"
