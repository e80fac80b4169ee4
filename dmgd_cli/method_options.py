"""The settings of the methods as options of a command, made from the methods themselves."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from dmgd.matching.methods import METHODS

# The panels of the help, each for the settings that need this switch.
PANELS: dict[str | None, str] = {
    "semantic": "Semantic matching",
    "distribution": "Distribution matching",
    "teacher": "Real crops",
    None: "Sampling",
}


def with_method_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command, in the place of whose `**settings` typer now sees an option for every setting of every method; a
    command without them as it is."""
    fixed = list(inspect.signature(command).parameters.values())
    if fixed[-1].kind is not inspect.Parameter.VAR_KEYWORD:
        return command
    options = _options()
    if taken := sorted({parameter.name for parameter in fixed} & set(options)):
        raise TypeError(f"a method's setting cannot be called {taken[0]!r}: dmgd distill has an option of that name")
    made = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in options.items()
    ]

    @functools.wraps(command)
    def with_options(*arguments: Any, **settings: Any) -> None:
        command(*arguments, **settings)

    with_options.__signature__ = inspect.Signature([*fixed[:-1], *made])  # type: ignore[attr-defined]
    with_options.__annotations__ = {**command.__annotations__, **options}
    return with_options


def _options() -> dict[str, Any]:
    """Every setting that has a help text as typer's annotation, panel by panel."""
    found: dict[str, dict[str, list[str]]] = {}  # name → help text → the methods that it holds for
    usual: dict[str, dict[str, list[str]]] = {}  # name → default in words → the methods that have it
    metavars: dict[str, str | None] = {}
    kinds: dict[str, tuple[Any, str | None]] = {}  # name → type, and the switch that it needs
    for method, settings in METHODS.items():
        hints = get_type_hints(settings)
        for one in fields(settings):
            if help := one.metadata.get("help"):
                found.setdefault(one.name, {}).setdefault(help, []).append(method)
                usual.setdefault(one.name, {}).setdefault(_default(one), []).append(method)
                metavars.setdefault(one.name, one.metadata.get("metavar"))
                needs = one.name if one.name in PANELS else one.metadata.get("needs")
                kinds.setdefault(one.name, (hints[one.name], needs))
    holders = {needs: [m for ms in found[needs or "steps"].values() for m in ms] for needs in PANELS}
    options = {}
    for name, (hint, needs) in sorted(kinds.items(), key=lambda item: list(PANELS).index(item[1][1])):
        is_choice = Literal in (get_origin(hint), *map(get_origin, get_args(hint)))
        kind = (str if is_choice else hint) | None
        names: tuple[str, ...] = ()
        more: dict[str, Any] = {}
        if name in PANELS and kind == bool | None:
            names, more = (f"--no-{name}",), {"callback": _switched_off}
        elif kind == bool | None:
            kind, more = str | None, {"parser": _yes_or_no, "metavar": "yes|no"}
        elif metavars[name]:
            more = {"metavar": metavars[name]}
        options[name] = Annotated[
            kind,
            typer.Option(
                *names,
                help=_described(found[name], usual[name], holders[needs]),
                rich_help_panel=f"{PANELS[needs]} ({', '.join(holders[needs])})",
                show_default=False,
                **more,
            ),
        ]
    return options


def _switched_off(given: bool | None) -> bool | None:
    return False if given else None


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise typer.BadParameter(f"{text!r} is neither yes nor no")
    return text == "yes"


def _default(one: Field[Any]) -> str:
    """The default of a setting in words; "" if its help says what it is without one."""
    if isinstance(one.default, tuple):
        return " ".join(map(str, one.default))
    if one.default is None:
        return one.metadata.get("unset", "by the data" if one.metadata.get("by_data") else "")
    if isinstance(one.default, bool):
        return "" if one.name in PANELS else "yes" if one.default else "no"
    return str(one.default)


def _described(help: dict[str, list[str]], usual: dict[str, list[str]], holders: list[str]) -> str:
    """The help text and the default, each with the methods that it holds for unless these are all that have such
    settings, or have this one."""

    def of_methods(texts: dict[str, list[str]], everybody: list[str], between: str) -> str:
        if list(texts.values()) == [everybody]:
            return next(iter(texts))
        return between.join(f"{text} ({', '.join(methods)})" for text, methods in texts.items())

    having = [method for methods in usual.values() for method in methods]
    defaults = of_methods({text: methods for text, methods in usual.items() if text}, having, ", ")
    return of_methods(help, holders, " ") + (f" Default: {defaults}." if defaults else "")
