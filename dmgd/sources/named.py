"""The data of named sources, from the first place that has it: the cache, the Hub, the archive of who made it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from dmgd.errors import ArtifactError, UsageError, unknown_choice
from dmgd.network import Arrival, reachable
from dmgd.progress import SILENT, Progress
from dmgd.sources.archives import ARCHIVES, Archive, fetch_archive
from dmgd.sources.folder import FolderLayout
from dmgd.sources.hf_opening import (
    CONVERTED,
    HubUnreachable,
    converted_folder,
    datasets_cache,
    open_converted,
    open_on_hub,
)
from dmgd.sources.layouts import prefixes
from dmgd.sources.source import Layout

# The Hub ids of named sources and their configurations, the default first.
_FASTAI = ("full_size", "320px", "160px")
HUB_COPIES = {
    "cifar10": ("uoft-cs/cifar10", ("plain_text",)),
    "imagenette": ("frgfm/imagenette", _FASTAI),
    "imagewoof": ("frgfm/imagewoof", _FASTAI),
}
IMAGENET_1K = ("ILSVRC/imagenet-1k", ())  # also the source of subsets without a dataset of their own


def arrival_of(name: str, variant: str | None) -> Arrival:
    """Where the data of a named source comes from. Raises UsageError for a variant that it does not have."""
    from huggingface_hub import constants

    data = _Published.of(name, variant)
    if data.is_here:
        return Arrival(data.what, "in the cache")
    remedy = (
        "give --data PATH, a local copy as image folder, parquet or WebDataset shards, or other data with --source "
        f"{', '.join(prefixes())} or digits"
    )
    if not data.archive:
        return Arrival(data.what, f"from the Hub ({data.hub_id})", (constants.ENDPOINT,), remedy)
    origin = f"{data.archive.bytes / 1e9:.1f} GB from the Hub ({data.hub_id}) or fastai"
    return Arrival(data.what, origin, (constants.ENDPOINT, data.archive.url), remedy)


def open_named(name: str, variant: str | None, columns: str | None, progress: Progress = SILENT) -> tuple[Layout, str]:
    """The layout of a named source's data, and what it is: variant and revision. Every place that is tried is said to
    `progress`.

    Raises UsageError for a variant that it does not have, HubUnreachable, saying what was tried and how to go on, if no
    place has the data.
    """
    data, failed, found = _Published.of(name, variant), [], None
    places = data.places(columns, progress)
    for place in places:
        if place.server:
            found = reachable(*(one.server for one in places if one.server)) if found is None else found
            if place.server not in found:
                failed.append(f"{place.name}: cannot be reached")
                continue
            progress.note(f"{name}: trying {place.name}")
        try:
            layout = place.open()
            return layout, hub_variant(layout, data.variant)
        except (HubUnreachable, ArtifactError) as error:
            failed.append(f"{place.name}: {error}")
            progress.note(f"{name}: {error}")
    raise HubUnreachable(
        f"no data for {name}. Tried {'; '.join(failed)}. Three ways to go on: (1) connect once, or set HF_HOME to a "
        f"cache that has it; (2) give --data PATH, a local copy as image folder, parquet or WebDataset shards; (3) use "
        f"other data, --source {', '.join(prefixes())} or digits"
    )


class _Place(NamedTuple):
    """Where data is looked for: `server` must be reached for it, "" if it is here."""

    name: str
    server: str
    open: Callable[[], Layout]


@dataclass(frozen=True)
class _Published:
    """The data of a named source as it is published."""

    name: str
    hub_id: str
    variant: str | None
    archive: Archive | None

    @classmethod
    def of(cls, name: str, variant: str | None) -> "_Published":
        hub_id, variants = HUB_COPIES.get(name, IMAGENET_1K)
        if variant is not None and variant not in variants:
            if not variants:
                raise UsageError(f"{hub_id} has no variants; leave --variant out")
            raise unknown_choice("variant", variant, variants)
        chosen = variant or next(iter(variants), None)
        return cls(name, hub_id, chosen, ARCHIVES.get((name, chosen or "")))

    @property
    def what(self) -> str:
        return f"{self.name}, {self.variant}" if self.variant else self.name

    @property
    def is_here(self) -> bool:
        return not self.places(None, SILENT)[0].server

    def places(self, columns: str | None, progress: Progress) -> list[_Place]:
        """Where the data is looked for: first where it is already, then in the order of this list."""
        from huggingface_hub import constants

        hub, hub_id, variant, archive = constants.ENDPOINT, self.hub_id, self.variant, self.archive
        loaded = any((datasets_cache() / hub_id.replace("/", "___")).glob(variant or "*"))
        found = [
            _Place(f"the Hub's {hub_id}", "" if loaded else hub, lambda: open_on_hub(hub_id, variant, columns)),
        ]
        if variant:
            kept = converted_folder(hub_id, variant).is_dir()
            found.append(
                _Place(f"its {CONVERTED}", "" if kept else hub, lambda: open_converted(hub_id, variant, columns))
            )
        if archive:
            kept, name = archive.folder.is_dir(), f"fastai's {archive.name}.tgz"
            found.append(
                _Place(
                    name,
                    "" if kept else archive.url,
                    lambda: FolderLayout.open(str(fetch_archive(archive, progress))),
                )
            )
        return sorted(found, key=lambda place: bool(place.server))


def hub_variant(layout: Layout, variant: str | None) -> str:
    """What a run records of data that was not given to it: fastai's archive; or the id of a dataset on the Hub, its
    variant and its revision, as far as they are known."""
    if isinstance(layout, FolderLayout):
        return f"fastai's {layout.root.name}"
    revision = getattr(layout, "revision", None)
    return " ".join([layout.location, *([variant] if variant else []), *([f"revision {revision}"] if revision else [])])
