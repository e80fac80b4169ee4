"""Declaring and checking settings, and the settings of statistics and verification. Standard library only."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from math import isfinite
from numbers import Integral, Real
from operator import ge, gt, le
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from dmgd.errors import UsageError, unknown_choice

_BOUNDS = {"at_least": ge, "above": gt, "at_most": le}
Pair = tuple[int, int]
Config = TypeVar("Config")


def setting(default: Any, help: str = "", **facts: Any) -> Any:
    """A dataclass field with metadata: `help` is the help text of its option (empty: no option); `at_least`, `above`
    and `at_most` are bounds; `of_steps` marks a pair of step indices; `needs` names the switch without which the
    setting has no effect; `by_data` is the rule for a method's None, see `Method.settled`; `unset` says in words what
    another None is; `metavar` stands for the value in the help."""
    return field(default=default, metadata={"help": help, **facts})


def preset(settings: type, name: str, default: Any, **facts: Any) -> Any:
    """The field `name` of a settings class with another default, and other facts."""
    (like,) = (one for one in fields(settings) if one.name == name)
    return field(default=default, metadata={**like.metadata, **facts})


def check_settings(settings: Any) -> None:
    """Bring every setting to the type that it is declared with, so that equal ones are recorded equally.

    Raises UsageError for another type, a value out of bounds, not one of the choices, or not an increasing pair.
    """
    hints = get_type_hints(type(settings))
    for one in fields(settings):
        name, hint, facts = one.name.replace("_", "-"), hints[one.name], one.metadata
        given = getattr(settings, one.name)
        if given is None and type(None) in get_args(hint):
            continue
        value = _typed(name, given, hint)
        for bound, holds in _BOUNDS.items():
            for one_value in value if isinstance(value, tuple) else (value,):
                if bound in facts and not holds(one_value, facts[bound]):
                    raise UsageError(f"{name} must be {bound.replace('_', ' ')} {facts[bound]}, not {one_value}")
        object.__setattr__(settings, one.name, value)


def _typed(name: str, value: Any, hint: Any) -> Any:
    """The value as the kind of `hint`: a switch, a number, an increasing pair, several numbers, or one of some
    choices."""
    kinds = {hint, *get_args(hint)}
    if kinds == {hint, int, Ellipsis}:
        return tuple(_typed(name, one, int) for one in (value if isinstance(value, tuple | list) else (value,)))
    if bool in kinds:
        if not isinstance(value, bool):
            raise UsageError(f"{name} must be True or False, not {value!r}")
    elif literal := next((kind for kind in kinds if get_origin(kind) is Literal), None):
        if value not in get_args(literal):
            raise unknown_choice(name, str(value), get_args(literal))
    elif Pair in kinds:
        ok = isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(n, Integral) for n in value)
        if not ok or not 0 <= value[0] < value[1]:
            shown = ",".join(map(str, value)) if isinstance(value, tuple | list) else repr(value)
            raise UsageError(f"{name} must be two increasing numbers, at least 0, not {shown}")
        return int(value[0]), int(value[1])
    elif float in kinds or int in kinds:
        kind, number = (float, Real) if float in kinds else (int, Integral)
        if isinstance(value, bool) or not isinstance(value, number) or not isfinite(value):
            raise UsageError(f"{name} must be a {'finite' if kind is float else 'whole'} number, not {value!r}")
        return kind(value)  # type: ignore[call-overload]
    elif str in kinds and get_origin(hint) is not tuple and not isinstance(value, str | Path):
        raise UsageError(f"{name} must be text, not {value!r}")
    return value


def configured(make: Callable[..., Config], config: Config | None, settings: dict[str, Any]) -> Config:
    """`config`, or the configuration that `make` builds from `settings`. Raises UsageError if both are given."""
    if config is None:
        try:
            return make(**settings)
        except TypeError as error:  # what Python says of an unknown keyword
            raise UsageError(str(error).partition("() ")[2]) from error
    if settings:
        raise UsageError(f"give either a config or settings, not both ({', '.join(settings)})")
    return config


@dataclass(frozen=True)
class StatisticsConfig:
    """What `fit-stats` computes: `k` support points per class by seeded k-means.

    `mirror` adds every image's mirror image. `max_bad` is the fraction of images that may be unreadable.
    """

    k: int = setting(10, at_least=1)
    seed: int = setting(0, at_least=0)
    mirror: bool = False
    max_bad: float = setting(0.01, at_least=0, at_most=1)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class VerifyConfig:
    """What `verify` checks beyond the records: `regenerate` images, sampled again with the statistics file `stats` or
    with statistics fitted again, whose pixels may differ by `tolerance` of 255 grey levels; and all pixels against the
    lock file `lock`. `write_lock` is a lock file to write."""

    regenerate: int = setting(0, at_least=0)
    tolerance: int = setting(2, at_least=0, at_most=255)
    stats: Path | str | None = None
    lock: Path | str | None = None
    write_lock: Path | str | None = None

    def __post_init__(self) -> None:
        check_settings(self)
