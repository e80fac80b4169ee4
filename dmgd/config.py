"""How settings are declared and checked, and those of statistics and verification. Standard library only."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from math import isfinite
from numbers import Integral, Real
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
    """Bring every setting to the type that it is declared with, so that equal ones are recorded equally.

    Raises UsageError for a setting of another type, out of its bounds, none of its choices, or no rising pair.
    """
    hints = get_type_hints(type(settings))
    for one in fields(settings):
        name, hint, facts = one.name.replace("_", "-"), hints[one.name], one.metadata
        given = getattr(settings, one.name)
        if given is None and type(None) in get_args(hint):
            continue
        value = _typed(name, given, hint)
        if "at_least" in facts and not value >= facts["at_least"]:
            raise UsageError(f"{name} must be at least {facts['at_least']}, not {value}")
        if "above" in facts and not value > facts["above"]:
            raise UsageError(f"{name} must be above {facts['above']}, not {value}")
        if "at_most" in facts and not value <= facts["at_most"]:
            raise UsageError(f"{name} must be at most {facts['at_most']}, not {value}")
        object.__setattr__(settings, one.name, value)


def _typed(name: str, value: Any, hint: Any) -> Any:
    """The value as the kind of `hint`: a switch, a number, a rising pair, or one of some choices."""
    kinds = {hint, *get_args(hint)}
    if bool in kinds:
        if not isinstance(value, bool):
            raise UsageError(f"{name} must be True or False, not {value!r}")
    elif get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise unknown_choice(name, str(value), get_args(hint))
    elif Pair in kinds:
        ok = isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(n, Integral) for n in value)
        if not ok or not 0 <= value[0] < value[1]:
            shown = ",".join(map(str, value)) if isinstance(value, tuple | list) else repr(value)
            raise UsageError(f"{name} must be two rising numbers from 0 up, not {shown}")
        return int(value[0]), int(value[1])
    elif float in kinds or int in kinds:
        kind, number = (float, Real) if float in kinds else (int, Integral)
        if isinstance(value, bool) or not isinstance(value, number) or not isfinite(value):
            raise UsageError(f"{name} must be a {'finite' if kind is float else 'whole'} number, not {value!r}")
        return kind(value)  # type: ignore[call-overload]
    return value


def configured(make: Callable[..., Config], config: Config | None, settings: dict[str, Any]) -> Config:
    """The configuration itself, or the one that `make` makes of settings. Raises UsageError for both at once."""
    if config is None:
        try:
            return make(**settings)
        except TypeError as error:  # what Python says of an unknown keyword
            raise UsageError(str(error).partition("() ")[2]) from error
    if settings:
        raise UsageError(f"there is a config already, which {', '.join(settings)} must be part of")
    return config


@dataclass(frozen=True)
class StatisticsConfig:
    """What `fit-stats` computes: `k` support points a class by seeded k-means.

    `mirror` counts every image's mirror image, too. `max_bad` is the share of images that may be unreadable.
    """

    k: int = setting(10, at_least=1)
    seed: int = setting(0, at_least=0)
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
