"""What can go wrong in a way that a user can mend. Every message names the value, the place and the next step."""

from collections.abc import Sequence


class DmgdError(Exception):
    """The work could not be done, or what was checked differs. The command line prints it as one line."""

    exit_code = 1


class UsageError(DmgdError):
    """The request itself is wrong: an unknown name, a value out of range, a path that is not what was asked for."""

    exit_code = 2


class ArtifactError(DmgdError):
    """A file or folder is missing, damaged, of another version, or belongs to other work."""


class MismatchError(DmgdError):
    """Two things that must agree do not: statistics and source, classes and prior, bytes and their checksum."""


def unknown_choice(kind: str, value: str, choices: "list[str] | tuple[str, ...]") -> UsageError:
    """The error for a name that is not one of `choices`, with the nearest known name if there is one."""
    from difflib import get_close_matches

    near = get_close_matches(value, choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UsageError(f"unknown {kind} {value!r}{hint} (known: {', '.join(choices)})")


def listed(items: Sequence[str], most: int = 10) -> str:
    """The first few `items`, and how many more there are."""
    return ", ".join(items[:most]) + (f", … ({len(items) - most} more)" if len(items) > most else "")
