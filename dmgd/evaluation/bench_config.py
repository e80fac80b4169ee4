"""The settings of `bench`. Standard library only."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from dmgd.config import check_settings, setting
from dmgd.errors import UsageError, unknown_choice
from dmgd.evaluation.planned_set import FULL, OWN, REAL, PlannedSet, views_of
from dmgd.evaluation.protocols import PROBE, PROTOCOLS, EvaluateConfig, Protocol
from dmgd.matching.method import Method
from dmgd.matching.methods import METHODS, method_named
from dmgd.specs import PriorSpec, SourceSpec, default_prior

REPEAT = 1000  # between the seeds of the trainings on one set: more than there are sets of a method


@dataclass(frozen=True)
class BenchConfig:
    """What `bench` compares: every one of the `methods` for every `ipc`, in all `tiles`, with all `labels`, and with
    `seeds` distillation seeds, 0, 1, …, by every protocol with every network.

    `ipc` counts stored images: with tiles 2, IPC 10 has 40 images of each class in mosaics of 2 × 2, in the pixels of
    10. `labels` are OWN, "soft" or "soft-N", see `PlannedSet`: logits of the `teacher`, for views those of the
    protocol's own augmentation. All images (FULL) are never in mosaics, and have the protocol's labels.

    A method is the name of one of METHODS or of REAL; or `methods` maps names for the table to such names or to
    methods with other settings. `networks` empty: each protocol's own. On every set `repeats` networks are trained:
    repeat r on the set of seed s with the seed s + 1000 r, which depends neither on the method nor on the number of
    seeds, so that differences of methods are paired. `epochs`, `size` and `teacher` are those of `EvaluateConfig`. With
    `ars` every set is also trained on without augmentation, from which the augmentation-robust score is computed.
    """

    methods: Mapping[str, Method | str] | tuple[str, ...] = ("dmgd", "dit", "mgd3", "random", "kmeans-real")
    ipc: tuple[int, ...] = setting((1, 10), at_least=1, at_most=100_000)
    tiles: tuple[int, ...] = setting((1,), at_least=1, at_most=16)
    labels: tuple[str, ...] = (OWN,)
    seeds: int = setting(3, at_least=1, at_most=REPEAT)
    repeats: int = setting(1, at_least=1)
    networks: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ("quick",)
    epochs: int | None = setting(None, at_least=1)
    size: int | None = None
    teacher: str | None = None
    ars: bool = False

    def __post_init__(self) -> None:
        check_settings(self)
        for name in ("methods", "labels", "networks", "protocols"):
            if isinstance(getattr(self, name), str):
                raise UsageError(f"{name} must be several names, not {getattr(self, name)!r}")
        self.rows  # noqa: B018 - checked
        for name in ("ipc", "tiles", "labels", "networks", "protocols"):
            object.__setattr__(self, name, tuple(_distinct(name, getattr(self, name))))
        for name in ("methods", "ipc", "tiles", "labels", "protocols"):
            if not getattr(self, name):
                raise UsageError(f"{name} must not be empty")
        if PROBE in self.networks:
            raise UsageError(f"bench trains networks; for the linear probe use dmgd evaluate --network {PROBE}")
        for one in self.trainings():
            one.chosen()
        if self.ars and (of_views := [name for name in self.labels if views_of(name)]):
            raise UsageError(f"ars trains without augmentation, which the labels {of_views[0]} bring; take soft")
        soft = [f"the protocol {name} needs" for name in self.protocols if PROTOCOLS[name].loss == "soft"]
        soft += [f"the labels {name} need" for name in self.stored]
        if bool(self.teacher) != bool(soft):
            raise UsageError(
                f"{soft[0]} a teacher: a folder of dmgd train-teacher, a checkpoint or a Hub id"
                if soft
                else "a teacher has no effect: neither a protocol nor labels are soft"
            )

    @property
    def rows(self) -> dict[str, Method | str]:
        """The methods and selections by their names in the table. Raises UsageError for an unknown one."""
        named = self.methods if isinstance(self.methods, Mapping) else _distinct("methods", self.methods)
        return {name: _method(by) for name, by in named.items()}

    @property
    def stored(self) -> tuple[str, ...]:
        """The labels that are stored. Raises UsageError for unknown ones."""
        return tuple(name for name in self.labels if views_of(name) is not None)

    @property
    def needs_prior(self) -> bool:
        """Whether anything but random images, or all of them, is compared."""
        return bool(set(self.rows.values()) - {"random", FULL})

    def sets(self) -> list[PlannedSet]:
        """All sets, those of the first seed first."""
        by_ipc = [(row, by) for row, by in self.rows.items() if by != FULL]
        full = [row for row, by in self.rows.items() if by == FULL]
        return [
            one
            for seed in range(self.seeds)
            for one in (
                *(
                    PlannedSet(row, by, ipc, seed, tiles, labels)
                    for ipc in self.ipc
                    for tiles in self.tiles
                    for labels in self.labels
                    for row, by in by_ipc
                ),
                *(PlannedSet(row, FULL, None, seed) for row in full),
            )
        ]

    def seeds_of(self, one: PlannedSet) -> tuple[int, ...]:
        """The seeds of the trainings on a set."""
        return tuple(one.seed + REPEAT * repeat for repeat in range(self.repeats))

    def trainings(self) -> list[EvaluateConfig]:
        """How networks are trained, without the numbers of seeds and sets: each protocol with each network."""
        return [
            EvaluateConfig(
                protocol,
                epochs=self.epochs,
                network=network,
                size=self.size,
                teacher=self._teacher_of(protocol),
                labels=self.stored,
            )
            for protocol in self.protocols
            for network in self.networks or (None,)
        ]

    def terms(self) -> list[Protocol]:
        """The protocols that every set is trained on by, with their networks, not resolved yet; with `ars` also without
        augmentation."""
        chosen = [one.chosen() for one in self.trainings()]
        plain = [without_augmentation(one) for one in chosen] if self.ars else []
        return [*chosen, *(one for one in plain if one not in chosen)]

    def to_json(self) -> dict[str, Any]:
        methods = {row: by if isinstance(by, str) else by.to_json() for row, by in self.rows.items()}
        own = {name: getattr(self, name) for name in ("seeds", "repeats", "epochs", "size", "teacher", "ars")}
        several = {name: list(getattr(self, name)) for name in ("ipc", "tiles", "labels", "networks", "protocols")}
        return {"methods": methods, **several, **own}

    def _teacher_of(self, protocol: str) -> str | None:
        return self.teacher if protocol in PROTOCOLS and PROTOCOLS[protocol].loss == "soft" else None


def without_augmentation(protocol: Protocol) -> Protocol:
    """The protocol with nothing but the normalisation that belongs to it."""
    return replace(protocol, augmentation=tuple(name for name in protocol.augmentation if name == "normalise"))


def _distinct(kind: str, names: Any) -> dict[Any, Any]:
    """Each of the names by itself. Raises UsageError if one is given twice."""
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise UsageError(f"{kind}: {twice[0]} is given twice")
    return {name: name for name in names}


def _method(by: Method | str) -> Method | str:
    """The method or selection. Raises UsageError for an unknown name."""
    if isinstance(by, Method) or by in REAL:
        return by
    if by not in METHODS:
        raise unknown_choice("method", by, tuple(dict.fromkeys((*METHODS, *REAL))))
    return method_named(by)


def bench_command(config: BenchConfig, source: SourceSpec, prior: PriorSpec | None) -> str:
    """The shortest `dmgd bench` command: without defaults, except for source, methods and ipc. Methods with other
    settings follow in a comment, as they come from Python."""
    source, usual = source.published(), BenchConfig()
    given: dict[str, Any] = {"source": source.name}
    given |= {name: asdict(source)[name] for name in ("data", "test_data", "variant", "columns", "class_map")}
    if prior and (prior := prior.published()).name != default_prior(source.name):
        given["prior"] = prior.name
    own = config.to_json()
    named = {row: by if isinstance(by, str) else by["name"] for row, by in own["methods"].items()}
    plain = {row for row, by in config.rows.items() if row == named[row] and by == _method(row)}
    given |= {"methods": ",".join(row for row in named if row in plain), "ipc": ",".join(map(str, config.ipc))}
    given |= {
        name: ",".join(map(str, own[name]))
        for name in ("tiles", "labels", "networks", "protocols")
        if own[name] != usual.to_json()[name]
    }
    given |= {
        name: own[name]
        for name in ("seeds", "repeats", "epochs", "size", "teacher")
        if own[name] != getattr(usual, name)
    }
    options = [part for name, value in given.items() if value for part in (f"--{name.replace('_', '-')}", str(value))]
    command = shlex.join(["dmgd", "bench", *options, *(["--ars"] if config.ars else [])])
    others = [row for row in named if row not in plain]
    return f"{command}  # and from Python: {'; '.join(others)}" if others else command
