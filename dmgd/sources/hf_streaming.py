"""Hugging Face datasets that are streamed, without a copy: Parquet at a URL, and large datasets on the Hub."""

import glob
import re
from collections.abc import Mapping
from typing import Any

from dmgd.errors import DmgdError, UsageError, said_by
from dmgd.sources.huggingface import HuggingFaceLayout, Streamed, layout_of_splits
from dmgd.sources.remote import by_split, fingerprint, matching, unstamped
from dmgd.specs import shown_url

LARGEST_COPY = 50_000_000_000  # bytes; larger datasets on the Hub are streamed


def open_at_url(url: str, columns: str | None) -> HuggingFaceLayout:
    """The Parquet files at a URL: one, those that a glob matches, or those below a folder.

    Raises UsageError if there are none, if they are no Parquet, or if their columns are ambiguous, ArtifactError if
    they cannot be reached.
    """
    from datasets import load_dataset

    shown, is_pattern = shown_url(url), "*" in url or shown_url(url).endswith(".parquet")
    files = matching(url if is_pattern else f"{url.rstrip('/')}/**/*.parquet")
    if not files:
        raise UsageError(f"there are no .parquet files at {shown}; give a folder, a file or a glob")
    # Names are escaped, as patterns are expected; those of HTTP, in which ? begins a query, cannot be.
    splits = {
        split: [file.url if file.url.startswith("http") else _escaped(file.url) for file in own]
        for split, own in by_split(f"hf:{shown}", files).items()
    }
    try:
        opened = load_dataset("parquet", data_files=splits, streaming=True)
        streamed = Streamed(_folder(url, is_pattern), fingerprint(files), tuple(unstamped(files)))
        return layout_of_splits(shown, columns, opened, (), streamed=streamed)
    except DmgdError:
        raise
    except Exception as error:  # as for local files
        raise UsageError(f"{shown} cannot be read as Parquet: {said_by(error)}") from error


def open_large(hub_id: str, variant: str | None) -> tuple[Mapping[str, Any], Streamed, str | None] | None:
    """The splits of a dataset on the Hub that is too large to be copied, how they are streamed, and the Hub's commit;
    None for other datasets, and for those whose size the Hub does not say."""
    from datasets import load_dataset, load_dataset_builder

    builder = load_dataset_builder(hub_id, variant)
    if (size := builder.info.download_size or 0) <= LARGEST_COPY:
        return None
    urls = [url for files in (builder.config.data_files or {}).values() for url in files]
    found = next(filter(None, (re.match(r"hf://.*@([0-9a-f]{40})(?=/)", url) for url in urls)), None)
    remark = (
        f"{hub_id} has {size / 1e9:,.0f} GB and is streamed from the Hub without a copy; to read it often, download it "
        "and give --data or hf:PATH"
    )
    streamed = Streamed(found[0] if found else f"hf://datasets/{hub_id}", str(builder.hash), (remark,))
    return load_dataset(hub_id, variant, streaming=True), streamed, found[1] if found else None


def _escaped(url: str) -> str:
    protocol, mark, path = url.partition("://")
    return protocol + mark + glob.escape(path)


def _folder(url: str, is_pattern: bool) -> str:
    """The folder below which rows may name files."""
    return url.partition("*")[0].rpartition("/")[0] if is_pattern else url.rstrip("/")
