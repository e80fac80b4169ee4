"""Statistics that lie beside an embedded prior, so that a set can be distilled without the data."""

from dmgd.errors import ArtifactError
from dmgd.priors.description import EMBEDDED_STATISTICS, local_path
from dmgd.priors.prior import Prior
from dmgd.statistics.file import Statistics


def load_embedded(prior: Prior) -> Statistics:
    """The statistics beside the embedded prior. Raises ArtifactError if they are damaged or not its own."""
    path = local_path(prior.spec.name)
    assert path  # see `embedded_points`
    statistics = Statistics.load(path / EMBEDDED_STATISTICS)
    if statistics.header["prior"]["digest"] != prior.identity.digest:
        raise ArtifactError(f"{path} has statistics of another prior; install dmgd again")
    return statistics
