"""The YAML head of the dataset card, which tells `load_dataset` and the Hub what lies where."""

from typing import Any

from dmgd.exporters.example import Description
from dmgd.exporters.features import column_types, label_names

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def card_head(description: Description, layout: str, source_name: str, images: int, size: int) -> dict[str, Any]:
    """The head, as a dict, of an export of `size` bytes."""
    head: dict[str, Any] = {
        "pretty_name": f"{source_name}, distilled",
        "license": "other",
        "license_name": "as-the-source",
        "task_categories": ["image-classification"],
        "tags": ["dataset-distillation", "dmgd", "synthetic"],
        "size_categories": [next((name for limit, name in SIZES if images < limit), "n>1M")],
    }
    if layout == "tensors":  # which `load_dataset` does not know
        return head
    files = [{"split": "train", "path": data_files(description, layout)}]
    return {
        **head,
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {
            "features": columns(description, layout),
            "splits": [{"name": "train", "num_bytes": size, "num_examples": images}],
        },
    }


def data_files(description: Description, layout: str) -> list[str]:
    """The patterns that find a layout's data, and nothing else of the export."""
    return {
        "webdataset": ["data/train-*.tar"],
        "parquet": ["data/train-*.parquet"],
        "imagefolder": [f"*/*.{description.image_format}", "metadata.jsonl"],
    }[layout]


def columns(description: Description, layout: str) -> list[dict[str, Any]]:
    """The columns' types."""
    names = {str(i): name for i, name in enumerate(label_names(description.classes))}
    # The image folder's reader infers its types from metadata.jsonl and knows no class labels there.
    label: Any = "int64" if layout == "imagefolder" else {"class_label": {"names": names}}
    metadata: list[dict[str, Any]] = [{"name": name, "dtype": kind} for name, kind in column_types().items()]
    logits = [{"name": "logits", "sequence": "float32"}] if description.soft_labels else []
    if layout != "webdataset":
        return [{"name": "image", "dtype": "image"}, {"name": "label", "dtype": label}, *metadata, *logits]
    return [
        {"name": description.image_format, "dtype": "image"},
        {"name": "cls", "dtype": label},
        {"name": "json", "struct": metadata},
        *({**column, "name": "logits.npy"} for column in logits),
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]
