"""`stats.safetensors`: the support points of every class and what they were computed from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float32, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dmgd.errors import ArtifactError
from dmgd.files import canonical_json, written_whole
from dmgd.records import ClassInfo

FORMAT = 1


@dataclass(frozen=True)
class Statistics:
    """Per class `support` points in latent space and their `mass` (sums to 1; 0 for points that a small class lacks),
    the number of images `count`, the class table, and the `header`: source, prior, settings and versions."""

    support: Float32[Tensor, "c k d"]
    mass: Float32[Tensor, "c k"]
    count: Int64[Tensor, " c"]
    classes: tuple[ClassInfo, ...]
    header: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all; equal statistics give equal bytes."""
        header = {**self.header, "format": FORMAT, "classes": [info.to_json() for info in self.classes]}
        tensors = {"support": self.support, "mass": self.mass, "count": self.count}
        with written_whole(path) as temporary:
            save_file(
                {name: t.contiguous() for name, t in tensors.items()}, temporary, {"dmgd": canonical_json(header)}
            )

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Read the file. Raises ArtifactError if it is missing, damaged, or of another kind or version."""
        try:
            with safe_open(path, "pt") as file:
                header = json.loads((file.metadata() or {})["dmgd"])
                tensors = {name: file.get_tensor(name) for name in ("support", "mass", "count")}
        except FileNotFoundError as error:
            raise ArtifactError(f"the statistics {path} do not exist; make them with dmgd fit-stats") from error
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise ArtifactError(
                f"{path} is damaged or is no statistics file ({error}); run dmgd fit-stats again"
            ) from error
        if header.pop("format", None) != FORMAT:
            raise ArtifactError(f"{path} was written by another version of dmgd; run dmgd fit-stats again")
        classes = tuple(ClassInfo.from_json(fields) for fields in header.pop("classes"))
        return cls(**tensors, classes=classes, header=header)
