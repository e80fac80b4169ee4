"""Errors that a user can fix. Every message says what is wrong, where, and what to do next."""

import re
from collections.abc import Sequence


class DmgdError(Exception):
    """The command failed, or a check found differences. The command line prints it as one line."""

    exit_code = 1


class UsageError(DmgdError):
    """The request is wrong: an unknown name, a value out of range, a path to something else."""

    exit_code = 2


class ArtifactError(DmgdError):
    """A file or folder is missing, damaged, has another format, or belongs to something else."""


class MismatchError(DmgdError):
    """Two things that must agree do not: statistics and source, classes and prior, bytes and their checksum."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this process, or a device, had no memory left. Torch says so in several ways, of which only some have a
    type of their own."""
    if isinstance(error, RuntimeError):
        return any(said in str(error) for said in ("out of memory", "can't allocate memory", "ALLOC_FAILED"))
    return isinstance(error, MemoryError)


def unknown_choice(kind: str, value: str, choices: "list[str] | tuple[str, ...]") -> UsageError:
    """The error for a name that is not one of `choices`; suggests the closest one, if any."""
    from difflib import get_close_matches

    folded = {choice.casefold(): choice for choice in choices}
    near = get_close_matches(value.casefold(), folded, n=1)
    hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
    return UsageError(f"unknown {kind} {value!r}{hint} (known: {', '.join(choices)})")


def listed(items: Sequence[str], most: int = 10) -> str:
    """The first `most` items, comma-separated, and the number of further ones."""
    return ", ".join(items[:most]) + (f", … ({len(items) - most} more)" if len(items) > most else "")


def visible(text: str) -> str:
    """`text` as it can be shown: control characters, which names in the data may contain, as escapes, and URLs without
    user names and passwords. Everything that is printed passes here."""
    return without_credentials("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))


def one_line(text: str) -> str:
    """`text`, visible, with line breaks as blanks."""
    return visible(" ".join(text.split()))


def without_credentials(text: str) -> str:
    """The text without user names, passwords and, in HTTP addresses, queries, which may be signatures, in its URLs."""
    return re.sub(r"(https?://[^\s?#'\")]*)\?[^\s'\")]*", r"\1", re.sub(r"(?<=://)[^/@\s]*@", "", text))


def said_by(error: Exception) -> str:
    """What another library's error says, in one short line."""
    return without_credentials(" ".join(str(error).split()))[:200] or type(error).__name__
