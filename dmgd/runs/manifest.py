"""The manifest of a run (run.json): its published form, and the differences between two."""

import json
from collections.abc import Callable
from typing import Any

from dmgd.files import canonical_json, sha256_bytes
from dmgd.matching.methods import method_from_json
from dmgd.specs import ELSEWHERE, PriorSpec, SourceSpec, published_place, unlabelled


def published(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest for publication: without the status and without local paths."""
    source, prior = specs_of(manifest)
    specs = {"source": source.published().to_json(), "prior": prior.published().to_json()}
    known = {key: value for key, value in manifest.items() if key != "status"}
    return {**with_teacher(known, published_place), "specs": specs}


def comparable(manifest: dict[str, Any]) -> dict[str, Any]:
    """The published manifest without what may change and the weights still be the same: their local paths and their
    labels. Digests say which they are."""
    known = with_teacher(published(manifest), lambda name: None)
    specs, statistics = known["specs"], known["statistics"]
    places = {key: value for key, value in specs["prior"].items() if not str(value).startswith(f"{ELSEWHERE}/")}
    weights = {kind: unlabelled(statistics[kind]) for kind in ("prior", "encoder") if kind in statistics}
    return {
        **known,
        "specs": {**specs, "prior": places},
        "prior": unlabelled(known["prior"]),
        "statistics": {**statistics, **weights},
    }


def with_teacher(manifest: dict[str, Any], change: Callable[[str], str | None]) -> dict[str, Any]:
    """The manifest with what `change` makes of the name of its method's teacher, where it has one."""

    def changed(part: dict[str, Any]) -> dict[str, Any]:
        method = part.get("method", {})
        return {**part, "method": {**method, "teacher": change(method["teacher"])}} if "teacher" in method else part

    return {**manifest, **{name: changed(manifest[name]) for name in ("config", "plan") if name in manifest}}


def recipe_of(manifest: dict[str, Any]) -> tuple[str, int]:
    """A digest of all that the images of a run depend on but its seed, and the seed."""
    config = manifest["config"]
    others = {**comparable(manifest), "config": {**config, "seed": None}}
    return sha256_bytes(canonical_json(others).encode()), config["seed"]


def specs_of(manifest: dict[str, Any]) -> tuple[SourceSpec, PriorSpec]:
    """The specs of the data and the weights of a run."""
    return SourceSpec(**manifest["specs"]["source"]), PriorSpec(**manifest["specs"]["prior"])


def grows(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether the run `found` can grow to the run `wanted`: a greedy run, to more images per class, all else equal."""
    is_greedy = method_from_json(wanted["config"]["method"]).matching_order == "greedy"
    asked_again = {**found, "config": {**found["config"], "ipc": wanted["config"]["ipc"]}}
    is_same = not differences(comparable(asked_again), comparable(wanted))
    return is_greedy and found["config"]["ipc"] < wanted["config"]["ipc"] and is_same


def differences(found: Any, wanted: Any, at: str = "") -> list[str]:
    """The differences of two JSON values, one line per key."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted(found.keys() | wanted.keys())
        return [d for key in keys for d in differences(found.get(key), wanted.get(key), f"{at}.{key}" if at else key)]
    same = json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True)
    return [] if same else [f"{at}: {_short(found)} there, {_short(wanted)} requested"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "…"
