"""Publishing an export on the Hugging Face Hub: exactly the local bytes, in one commit."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dmgd.errors import ArtifactError, UsageError, without_credentials
from dmgd.exporters.distilled import export_problems
from dmgd.exporters.folder import INDEX, read_index
from dmgd.files import scratch_folder
from dmgd.progress import SILENT, Progress

NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def check_push(repo_id: str) -> None:
    """Raise UsageError for a name that is not `user/name`, ArtifactError if there is no token or HF_HUB_OFFLINE is
    set."""
    from huggingface_hub import constants, get_token

    if not NAME.fullmatch(repo_id) or len(repo_id) > 96 or ".." in repo_id or "--" in repo_id:
        raise UsageError(f"{repo_id!r} is not a dataset name on the Hub; write it as user/name")
    if constants.HF_HUB_OFFLINE:
        raise ArtifactError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it")
    if not (token := get_token()):
        raise ArtifactError("there is no Hub token; run `hf auth login`, or set HF_TOKEN to one with write access")
    if not token.isascii() or not token.isprintable():
        raise ArtifactError("the Hub token has characters that no token has; copy it again into HF_TOKEN")


def publish(
    out: Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str = "Upload distilled dataset",
    progress: Progress = SILENT,
) -> str:
    """Upload the export at `out` to the dataset `repo_id` and return its URL.

    The repository and the branch `revision` are created if missing. There is a single commit; files that are already
    there are not sent again, and those of an earlier export that this one lacks are removed.
    Raises ArtifactError if the export was changed or damaged, or if the Hub refuses or cannot be reached; then nothing
    is published.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    index = read_index(out)
    if problem := next(export_problems(out, index), None):
        raise ArtifactError(f"{out} is damaged ({problem}); export the run again to a new folder")
    api = HfApi()
    shown = without_credentials(api.endpoint)
    dataset: dict[str, Any] = {"repo_id": repo_id, "repo_type": "dataset"}
    paths = [*(file["path"] for file in index["files"]), INDEX]
    with progress.task("push", None, "files") as task, hub_errors(repo_id, shown):
        api.create_repo(**dataset, private=private, exist_ok=True)
        if revision:
            api.create_branch(**dataset, branch=revision, exist_ok=True)
        operations: list[Any] = [CommitOperationAdd(path, str(out / path)) for path in paths]
        stale = sorted(set(_published_paths(api, repo_id, revision)) - set(paths))
        operations += [CommitOperationDelete(path) for path in stale]
        api.create_commit(**dataset, operations=operations, commit_message=message, revision=revision)
        task.advance(len(paths))
    return f"{shown}/datasets/{repo_id}" + (f"/tree/{revision}" if revision else "")


def _published_paths(api: Any, repo_id: str, revision: str | None) -> list[str]:
    """The files in the index of the export that is on the Hub now; none if there is no index."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with scratch_folder() as folder:
        try:
            path = api.hf_hub_download(repo_id, INDEX, repo_type="dataset", revision=revision, local_dir=folder)
            return [file["path"] for file in json.loads(Path(path).read_text())["files"]]
        except LocalEntryNotFoundError:  # unreachable, which is not the same as missing
            raise
        except (EntryNotFoundError, ValueError, KeyError, TypeError):
            return []


@contextmanager
def hub_errors(repo_id: str, endpoint: str) -> Iterator[None]:
    """Turn the errors of the Hub client into one line that says what to do.

    The client's own messages are dropped: their URLs may contain credentials.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The HTTP library depends on the client's version; its errors share a base with this one, or are OSErrors.
    transport: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, OSError)
    # While files are sent, it wraps them in a RuntimeError.
    caught: tuple[type[Exception], ...] = (*transport, RuntimeError)
    try:
        yield
    except HFValidationError as error:
        raise UsageError(f"{repo_id!r} is not a dataset name on the Hub; write it as user/name") from error
    except caught as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if not isinstance(cause, transport) or getattr(cause, "filename", None):
            raise  # a local error, or a bug
        said = _advice(getattr(getattr(cause, "response", None), "status_code", None), repo_id, endpoint, cause)
        raise ArtifactError(f"{said}; nothing was published, and what was sent is not sent again") from None


def _advice(status: int | None, repo_id: str, endpoint: str, error: BaseException) -> str:
    known = {
        400: f"{endpoint} refuses what was sent (400): check the name {repo_id} and the revision",
        401: f"{endpoint} does not accept the token, or {repo_id} does not exist (401): log in again with `hf auth "
        "login`, or set HF_TOKEN to a token with write access",
        402: f"the account of {repo_id} has no storage left (402): free some, or push to another",
        403: f"the token may not write to {repo_id} (403): use one with write access, or push to a name of your own",
        404: f"{repo_id} is not available as a dataset (404): it is hidden from this token, or the name is taken by a "
        "repository of another type; choose another name",
        409: f"{repo_id} was changed by somebody else meanwhile, or its name is taken (409): repeat the command, or "
        "choose another name",
        413: f"{endpoint} refuses files of this size (413): export with a smaller --shard-mb",
        429: f"{endpoint} limits the rate of requests (429): repeat the command in a few minutes",
    }
    if status is None:
        lost = f"{endpoint} cannot be reached or dropped the connection ({type(error).__name__})"
        return f"{lost}: check the network and HF_ENDPOINT, then repeat"
    return known.get(status) or f"{endpoint} failed ({status}): repeat the command later"
