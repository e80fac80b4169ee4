"""How settings are declared and checked, and those of statistics and verification. Standard library only."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from dmgd.errors import UsageError, unknown_choice

Pair = tuple[int, int]
Config = TypeVar("Config")


def setting(default: Any, help: str = "", **facts: Any) -> Any:
    """A dataclass field that says what it is: `help` is that of its option (without, there is none); `at_least`,
    `above` and `at_most` bound it; a pair `of_steps` holds step indices; with `needs` it has an effect while that
    switch is on."""
    return field(default=default, metadata={"help": help, **facts})


def preset(settings: type, name: str, default: Any) -> Any:
    """The field `name` of other settings with a default of its own."""
    (like,) = (one for one in fields(settings) if one.name == name)
    return field(default=default, metadata=like.metadata)


def check_settings(settings: Any) -> None:
    """Turn whole numbers into floats where those are meant. Raises UsageError for a setting that is out of its bounds,
    none of its choices, or no rising pair."""
    hints = get_type_hints(type(settings))
    for one in fields(settings):
        value, name, facts = getattr(settings, one.name), one.name.replace("_", "-"), one.metadata
        if value is None:
            if type(None) not in get_args(hints[one.name]):
                raise UsageError(f"{name} must be given")
            continue
        if type(value) is int and float in (hints[one.name], *get_args(hints[one.name])):
            object.__setattr__(
                settings, one.name, value := float(value)
            )  # or equal settings would not be the same JSON
        if "at_least" in facts and not value >= facts["at_least"]:
            raise UsageError(f"{name} must be at least {facts['at_least']}, not {value}")
        if "above" in facts and not value > facts["above"]:
            raise UsageError(f"{name} must be above {facts['above']}, not {value}")
        if "at_most" in facts and not value <= facts["at_most"]:
            raise UsageError(f"{name} must be at most {facts['at_most']}, not {value}")
        if get_origin(hints[one.name]) is Literal and value not in get_args(hints[one.name]):
            raise unknown_choice(name, value, get_args(hints[one.name]))
        if isinstance(value, tuple) and not 0 <= value[0] < value[1]:
            raise UsageError(f"{name} must be two rising numbers from 0 up, not {value[0]},{value[1]}")


def configured(make: Callable[..., Config], config: Config | None, settings: dict[str, Any]) -> Config:
    """The configuration itself, or the one that `make` makes of settings. Raises UsageError for both at once."""
    if config is None:
        return make(**settings)
    if settings:
        raise UsageError(f"there is a config already, which {', '.join(settings)} must be part of")
    return config


@dataclass(frozen=True)
class StatisticsConfig:
    """What `fit-stats` computes: `k` support points a class by seeded k-means.

    `mirror` counts every image's mirror image, too. `max_bad` is the share of images that may be unreadable.
    """

    k: int = setting(10, at_least=1)
    seed: int = 0
    mirror: bool = False
    max_bad: float = setting(0.01, at_least=0, at_most=1)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class VerifyConfig:
    """What `verify` checks beside the records: `regenerate` images made again, from the statistics file `stats` or from
    statistics fitted again, whose pixels may be `tolerance` of 255 grey levels off, as another processor rounds; and
    the pixels against the file `lock`, or with `write_lock` to be such a file."""

    regenerate: int = 0
    tolerance: int = 2
    stats: Path | str | None = None
    lock: Path | str | None = None
    write_lock: Path | str | None = None
