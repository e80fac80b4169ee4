"""run.json as a value: what others may read of it, and how two runs differ."""

import json
from typing import Any

from dmgd.matching.methods import method_from_json
from dmgd.specs import PriorSpec, SourceSpec


def published(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest as others may read it: of local data and weights the names, not where they lie on this machine."""
    source, prior = specs_of(manifest)
    specs = {"source": source.published().to_json(), "prior": prior.published().to_json()}
    return {**{key: value for key, value in manifest.items() if key != "status"}, "specs": specs}


def specs_of(manifest: dict[str, Any]) -> tuple[SourceSpec, PriorSpec]:
    """What names the data and the weights of a run."""
    return SourceSpec(**manifest["specs"]["source"]), PriorSpec(**manifest["specs"]["prior"])


def grows(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a run can become one of more images per class, all else equal: where images are made one after another,
    the first ones are the same."""
    is_greedy = method_from_json(wanted["config"]["method"]).matching_order == "greedy"
    asked_again = {**found, "config": {**found["config"], "ipc": wanted["config"]["ipc"]}}
    is_same = not differences(published(asked_again), published(wanted))
    return is_greedy and found["config"]["ipc"] < wanted["config"]["ipc"] and is_same


def differences(found: Any, wanted: Any, at: str = "") -> list[str]:
    """Where two JSON values differ, as "key: found, not wanted"."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted(found.keys() | wanted.keys())
        return [d for key in keys for d in differences(found.get(key), wanted.get(key), f"{at}.{key}" if at else key)]
    same = json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True)
    return [] if same else [f"{at}: {_short(found)} there, {_short(wanted)} asked for"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "…"
