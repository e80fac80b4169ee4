"""What must be downloaded, and whether it can be: servers are tried first, as their clients retry for a long time, and
DNS lookups have no timeout."""

import os
import socket
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from dmgd.errors import ArtifactError, listed, without_credentials

REACH_SECONDS = 2.0


def is_offline() -> bool:
    """Whether the user has asked for no network, by HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def hub_reachable() -> bool:
    """Whether the Hub (HF_ENDPOINT) accepts a connection."""
    from huggingface_hub import constants

    return reachable(constants.ENDPOINT) == {constants.ENDPOINT}


def reachable(*urls: str, seconds: float = REACH_SECONDS) -> set[str]:
    """Those of the URLs whose server, or the proxy before it, accepts a connection within `seconds`, all asked at the
    same time; none if the user has asked for no network."""
    if is_offline():
        return set()
    found: set[str] = set()
    attempts = [threading.Thread(target=_connect, args=(url, seconds, found), daemon=True) for url in urls]
    for attempt in attempts:
        attempt.start()
    deadline = time.monotonic() + seconds
    for attempt in attempts:
        attempt.join(max(0.0, deadline - time.monotonic()))
    return set(found)


def _connect(url: str, seconds: float, found: set[str]) -> None:
    proxy = next((os.environ[key] for key in ("HTTPS_PROXY", "https_proxy") if os.environ.get(key)), None)
    server = urlsplit(proxy or url)
    try:
        port = server.port or (80 if server.scheme == "http" else 443)
        with socket.create_connection((server.hostname or "", port), timeout=seconds):
            found.add(url)
    except (OSError, ValueError):  # no connection, or no URL
        return


@dataclass(frozen=True)
class Arrival:
    """Where data or weights come from. `what` names them, `origin` says from where, and how large they are. They must
    be downloaded from one of the servers at `urls`; none: they are here. `remedy`: how to go on without a network."""

    what: str
    origin: str
    urls: tuple[str, ...] = ()
    remedy: str = ""


def require_arrivals(*arrivals: Arrival) -> None:
    """Raise ArtifactError if any of them is not here and has no server that can be reached: what is missing, and how to
    go on."""
    awaited = [one for one in arrivals if one.urls]
    found = reachable(*(url for one in awaited for url in one.urls)) if awaited else set()
    missing = [one for one in awaited if not found & set(one.urls)]
    if not missing:
        return
    servers = listed(sorted({urlsplit(without_credentials(url)).netloc for one in missing for url in one.urls}))
    why = "HF_HUB_OFFLINE is set" if is_offline() else f"cannot reach {servers}"
    ways = "; ".join(one.remedy for one in missing)
    raise ArtifactError(
        f"missing {' and '.join(f'{one.what} ({one.origin})' for one in missing)}: {why}. To go on, connect once, or "
        f"set HF_HOME to a cache that has it all; or {ways}"
    )
