"""The token ids of a snapshot's rows, kept beside them: a run that starts again does not tokenise again.

Knows a tokenizer and files; knows no model and no run. The folder may be deleted at any time.
"""

import hashlib
import json
import os
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
    ) -> Sequence[Rendered]:
        """The examples' ids and loss masks, as `render_rows` makes them; `on_rows` hears now and then how many are
        there. Raises StudioError as it does."""
        if self._folder is None or not examples:
            return render_rows(self._base, examples, self._settings)
        file = self._folder / f"{split}-{self._digest}.npz"
        try:
            found = TokenRows.read(file)
            if len(found) == len(examples):
                return found
        # What np.load and the zip in a file raise where it is not there, cut off or something else.
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass
        portions = []
        for start in range(0, len(examples), ROWS_AT_ONCE):
            portion = examples[start : start + ROWS_AT_ONCE]
            portions.append(TokenRows.of(render_rows(self._base, portion, self._settings)))
            on_rows(start + len(portion))
        rows = TokenRows.joined(portions)
        with suppress(OSError):
            rows.write(file)
        return rows


class TokenRows(Sequence[Rendered]):
    """Rows as arrays, each made when it is asked for: as lists, those of a large dataset take ten times the memory, and
    every pass of Python's garbage collection over them holds up all threads."""

    def __init__(self, arrays: Mapping[str, np.ndarray], answer_heads: Sequence[Sequence[int]]) -> None:
        """`arrays`: `ids` int32 and `bears_loss` bool of all rows one behind the other, and for each row, int32, its
        `lengths`, `head_of_row` (a number of `answer_heads`) and `Rendered`'s counts. Raises ValueError where they do
        not fit together."""
        self._arrays, self._heads = arrays, [tuple(head) for head in answer_heads]
        self._ends = np.cumsum(arrays["lengths"], dtype=np.int64)
        whole = int(self._ends[-1]) if len(self._ends) else 0
        of_tokens = {len(arrays[name]) for name in ("ids", "bears_loss")}
        of_rows = {len(arrays[name]) for name in ("head_of_row", *_COUNTS)}
        if (of_tokens, of_rows) != ({whole}, {len(self._ends)}):
            raise ValueError("parts of different lengths")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: Any) -> Any:
        """The row of that number, from 0; no slices."""
        arrays, end = self._arrays, int(self._ends[number])
        start = end - int(arrays["lengths"][number])
        counts = (int(arrays[name][number]) for name in _COUNTS)
        head = self._heads[arrays["head_of_row"][number]]
        return Rendered(arrays["ids"][start:end].tolist(), arrays["bears_loss"][start:end].tolist(), *counts, head)

    @classmethod
    def of(cls, rows: Sequence[Rendered]) -> "TokenRows":
        heads = list(dict.fromkeys(row.answer_head for row in rows))
        arrays = {
            "ids": np.array([number for row in rows for number in row.ids], np.int32),
            "bears_loss": np.array([bears for row in rows for bears in row.bears_loss], np.bool_),
            "lengths": np.array([len(row.ids) for row in rows], np.int32),
            "head_of_row": np.array([heads.index(row.answer_head) for row in rows], np.int32),
        }
        return cls(arrays | {name: np.array([getattr(row, name) for row in rows], np.int32) for name in _COUNTS}, heads)

    @classmethod
    def joined(cls, parts: Sequence["TokenRows"]) -> "TokenRows":
        heads = list(dict.fromkeys(head for part in parts for head in part._heads))
        arrays = {name: np.concatenate([part._arrays[name] for part in parts]) for name in parts[0]._arrays}
        numbers = [[heads.index(head) for head in part._heads] for part in parts]
        arrays["head_of_row"] = np.concatenate(
            [
                np.array(of_part, np.int32)[part._arrays["head_of_row"]]
                for of_part, part in zip(numbers, parts, strict=True)
            ]
        )
        return cls(arrays, heads)

    @classmethod
    def read(cls, file: Path) -> "TokenRows":
        """Raises what np.load does where the file is not there or damaged."""
        with np.load(file) as found:
            arrays = {name: found[name] for name in ("ids", "bears_loss", "lengths", "head_of_row", *_COUNTS)}
            return cls(arrays, json.loads(str(found["answer_heads"])))

    def write(self, file: Path) -> None:
        """Aside first. Raises OSError."""
        aside = file.with_name(f".{uuid.uuid4().hex}.npz")
        try:
            file.parent.mkdir(exist_ok=True)
            np.savez(aside, **self._arrays, answer_heads=np.array(json.dumps(self._heads)))
            os.replace(aside, file)
        finally:
            aside.unlink(missing_ok=True)


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
