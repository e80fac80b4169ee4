"""The engine that a command's options ask for."""

from dmgd.distribution.engine import Engine, as_engine
from dmgd.errors import UsageError


def engine_of(device: str, ray: str | None, workers: int | None, gpus_per_worker: float | None) -> Engine:
    """The engine on the device, see `RayEngine`. Raises UsageError for options that have no effect, or without Ray."""
    if ray is None:
        given = {"--workers": workers, "--gpus-per-worker": gpus_per_worker}
        if names := [name for name, value in given.items() if value is not None]:
            raise UsageError(f"{' and '.join(names)} has no effect without --ray; add --ray local for this machine")
        return as_engine(device)
    from dmgd.distribution.ray_engine import RayEngine

    return RayEngine(ray, workers, 1 if gpus_per_worker is None else gpus_per_worker, device)
