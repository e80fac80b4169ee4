"""The classes of CIFAR-10."""

from dmgd.classes.info import ClassInfo

_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar10_classes() -> tuple[ClassInfo, ...]:
    """The ten classes in the order of their numbers (Krizhevsky 2009)."""
    return tuple(map(ClassInfo, _NAMES))
