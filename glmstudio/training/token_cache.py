"""The token ids of a snapshot's rows, kept beside them: a run that starts again does not tokenise again.

Knows a tokenizer and files; knows no model and no run. The folder may be deleted at any time.
"""

import hashlib
import json
import os
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sentencepiece
import tokenizers
import transformers

from glmstudio import __version__
from glmstudio.data.example import Example
from glmstudio.models.chat_format import Rendered
from glmstudio.settings import TrainingSettings
from glmstudio.training.batches import ROWS_AT_ONCE, render_rows

if TYPE_CHECKING:
    from glmstudio.models.base import Base

FOLDER = "tokens"
# What `Rendered` has beside its ids, one number a row.
_COUNTS = ("prompt_length", "cut_prompt", "cut_target")


class TokenCache:
    """Below `folder`, one file for each split and way to tokenise; without a folder nothing is kept.

    A file's name is a digest of what decides the ids beside the rows: the tokenizer's own files, family, prompt style,
    lengths, versions, and what sample rows become. A damaged file is made anew; a folder that cannot be written is no
    error.
    """

    def __init__(self, folder: Path | None, base: "Base", settings: TrainingSettings) -> None:
        self._base = base
        self._settings = settings
        self._folder = folder / FOLDER if folder is not None and base.tokenizer is not None else None
        try:
            self._digest = _digest(base, settings) if self._folder is not None else ""
        except OSError:
            # No room for the tokenizer's files in the system's temporary folder.
            self._folder = None

    def rows(
        self, split: str, examples: Sequence[Example], on_rows: Callable[[int], None] = lambda count: None
    ) -> list[Rendered]:
        """The examples' ids and loss masks, as `render_rows` makes them; `on_rows` hears now and then how many are
        there. Raises StudioError as it does."""
        if self._folder is None or not examples:
            return render_rows(self._base, examples, self._settings)
        file = self._folder / f"{split}-{self._digest}.npz"
        try:
            found = _read(file)
            if len(found) == len(examples):
                return found
        # What np.load and the zip in a file raise where it is not there, cut off or something else.
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass
        rows = []
        for start in range(0, len(examples), ROWS_AT_ONCE):
            rows += render_rows(self._base, examples[start : start + ROWS_AT_ONCE], self._settings)
            on_rows(len(rows))
        _write(file, rows)
        return rows


def _digest(base: "Base", settings: TrainingSettings) -> str:
    # The second is too long, for how it is cut.
    samples = [Example("Name it. 说", "a 1 天" * times, "[]" * times) for times in (1, settings.max_source_length)]
    rendered = render_rows(base, samples, settings)
    versions = [__version__, transformers.__version__, tokenizers.__version__, sentencepiece.__version__]
    lengths = [settings.max_source_length, settings.max_target_length]
    digest = hashlib.sha256(repr([base.family.name, settings.prompt_style, lengths, versions, rendered]).encode())
    with tempfile.TemporaryDirectory() as place:
        base.tokenizer.save_pretrained(place)
        for path in sorted(path for path in Path(place).rglob("*") if path.is_file()):
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _read(file: Path) -> list[Rendered]:
    with np.load(file) as arrays:
        # A row at a time, here and in `_write`: one call for all of them holds up every other thread.
        ids, bears = arrays["ids"], arrays["bears_loss"]
        heads = json.loads(str(arrays["answer_heads"]))
        edges = pairwise(accumulate(arrays["lengths"].tolist(), initial=0))
        counts = zip(*(arrays[name].tolist() for name in _COUNTS), strict=True)
        numbers = arrays["head_of_row"].tolist()
        return [
            Rendered(ids[start:end].tolist(), bears[start:end].tolist(), *of_row, tuple(heads[head]))
            for (start, end), of_row, head in zip(edges, counts, numbers, strict=True)
        ]


def _write(file: Path, rows: Sequence[Rendered]) -> None:
    heads = list(dict.fromkeys(row.answer_head for row in rows))
    lengths = [len(row.ids) for row in rows]
    ids, bears = np.empty(sum(lengths), np.int32), np.empty(sum(lengths), np.bool_)
    for row, (start, end) in zip(rows, pairwise(accumulate(lengths, initial=0)), strict=True):
        ids[start:end], bears[start:end] = row.ids, row.bears_loss
    arrays: dict[str, Any] = {
        "ids": ids,
        "bears_loss": bears,
        "lengths": np.array(lengths, np.int32),
        "head_of_row": np.array([heads.index(row.answer_head) for row in rows], np.int32),
        "answer_heads": np.array(json.dumps(heads)),
    }
    arrays |= {name: np.array([getattr(row, name) for row in rows], np.int32) for name in _COUNTS}
    aside = file.with_name(f".{uuid.uuid4().hex}.npz")
    try:
        file.parent.mkdir(exist_ok=True)
        np.savez(aside, **arrays)
        os.replace(aside, file)
    except OSError:
        with suppress(OSError):
            aside.unlink()
