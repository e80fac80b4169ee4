"""`index.json`: what an export holds, written last, so that its presence says that the export is whole."""

import json
from pathlib import Path
from typing import Any

from dmgd.errors import ArtifactError, UsageError

FORMAT = 1
INDEX = "index.json"


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a finished export. Raises UsageError if the folder has none, ArtifactError for one that is damaged
    or of another version."""
    try:
        index = json.loads((folder / INDEX).read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{folder} is not an export (it has no {INDEX}); make one with dmgd export") from error
    except ValueError as error:
        raise ArtifactError(f"{folder / INDEX} is damaged ({error}); export the run again to a new folder") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT or "files" not in index:
        raise ArtifactError(f"{folder / INDEX} is not an index of this version of dmgd; export the run again")
    return index
