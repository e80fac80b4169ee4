"""The way from the name a user types to a source."""

from pathlib import Path

from dmgd.classes.imagenet import imagenet_subsets
from dmgd.errors import UsageError, unknown_choice
from dmgd.sources.source import Source

NAMED = ("digits", *imagenet_subsets(), "imagenet-1k")
PREFIXES = ("folder:PATH", "hf:ID_OR_PATH", "wds:PATTERN")


def open_source(
    name: str,
    *,
    data: str | None = None,
    test_data: str | None = None,
    variant: str | None = None,
    columns: str | None = None,
    class_map: Path | None = None,
) -> Source:
    """The source called `name`: `digits`, one of ImageNet's family, `folder:PATH`, `hf:ID_OR_PATH` or `wds:PATTERN`.

    `data` is a local copy of a named source, a folder, parquet or WebDataset shards (the prefixes above decide where
    that is not clear). `test_data` holds the test split where the data brings none. `variant` is the Hub's
    configuration name, `columns` "IMAGE,LABEL" of a Hugging Face dataset. `class_map` is a JSON or CSV file from the
    data's labels to WordNet ids or class names.

    Raises UsageError for what cannot be found or does not go together, MismatchError for classes that do not match.
    """
    options = {"--data": data, "--test-data": test_data, "--variant": variant, "--columns": columns}
    kind, _, place = name.partition(":")
    if name == "digits":
        from dmgd.sources.digits import digits_source

        if given := [option for option, value in {**options, "--class-map": class_map}.items() if value is not None]:
            raise UsageError(f"the source digits is embedded and takes no {', '.join(given)}")
        return digits_source()

    from dmgd.sources.labelled import any_source, named_source

    if name in NAMED:
        return named_source(name, data, test_data, variant, columns, class_map)
    if kind in ("folder", "hf", "wds") and place:
        if data is not None:
            raise UsageError(f"--data goes with a named source; {name} already says where the data is")
        return any_source(kind, place, test_data, variant, columns, class_map)
    raise unknown_choice("source", name, (*NAMED, *PREFIXES))
