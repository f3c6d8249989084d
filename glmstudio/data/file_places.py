"""The dataset and the split that the name of a file proposes, by whole words. Pure: touches no disk."""

import re
from pathlib import Path

from glmstudio.data.example import DEFAULT_DATASET, SPLIT_NAMES, split_of_name
from glmstudio.file_names import is_fit

_ENDINGS = re.compile(r"(\.(jsonl|ndjson|json|csv|tsv|txt|xlsx|parquet|md|docx|gz|zip))+$", re.IGNORECASE)
_NAMES = [name for names in SPLIT_NAMES.values() for name in names]
# Chinese words have no blanks around them: in a longer name only those count that nothing else means.
_WORDS = "|".join(sorted((name for name in _NAMES if name.isascii() or name.endswith("集")), key=len, reverse=True))
_SPLIT = re.compile(rf"[-_. ]*(?<![A-Za-z0-9])({_WORDS})(?![A-Za-z0-9])", re.IGNORECASE)
_AROUND = "-_. "


def place_of(name: str) -> tuple[str, str]:
    """(dataset, split): "mixed_dev_dataset.jsonl" is the dev part of "mixed_dataset". A name that says several splits
    says none."""
    stem = _ENDINGS.sub("", Path(name).name).strip()
    if split := split_of_name(stem):
        return DEFAULT_DATASET, split
    splits = {split_of_name(found[1]) for found in _SPLIT.finditer(stem)}
    if len(splits) != 1:
        return _fit(stem), "train"
    return _fit(_SPLIT.sub("", stem)), splits.pop()


def _fit(name: str) -> str:
    name = name.strip(_AROUND)
    return name if is_fit(name) else DEFAULT_DATASET
