"""One evaluation as a file: what was asked of whom, how, and what came of it. Each is a file of its own for good."""

import dataclasses
import json
import os
import time
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NotRequired

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from glmstudio.data.records import Seconds, read_record
from glmstudio.evaluation.scores import verdict

FOLDER = "scores"


class Totals(TypedDict):
    """As `scores.score` gives them, with the ends of the answers counted."""

    __pydantic_config__ = ConfigDict(extra="allow")
    rows: int
    json_rows: int
    triple_rows: int
    label_rows: int
    json_valid: float | None
    format_match: float | None
    triple_precision: float | None
    triple_recall: float | None
    triple_f1: float | None
    label_accuracy: float | None
    exact_match: float | None
    finish_reasons: dict[str, int]


class Row(TypedDict):
    """A row's prompt, its target, and what both models said."""

    instruction: str
    input: str
    target: str
    base: str
    tuned: str


class AnsweredBy(TypedDict):
    """As `evaluate.answered_by` gives it: base, prompt style, and which content of the checkpoint it was."""

    base: dict[str, str]
    prompt_style: str
    max_source_length: int
    digest: str
    step: int


class Scores(TypedDict):
    """As `evaluate` gives them; evaluations of older versions do not say who answered."""

    __pydantic_config__ = ConfigDict(extra="allow")
    base: Totals
    tuned: Totals
    rows: list[Row]
    total: int
    cancelled: bool
    answered_by: NotRequired[AnsweredBy]


@dataclass(frozen=True)
class Scoreboard:
    """An evaluation of a run's checkpoint on the dev rows of `dataset`, frozen under `snapshot_id`. `settings` are
    those of GenerationSettings; "" and {} in files of older versions. `file` is its name without the ending."""

    run_id: str
    checkpoint: str
    dataset: str
    created_at: Seconds
    scores: Scores
    settings: dict[str, Any] = field(default_factory=dict)
    snapshot_id: str = ""
    file: str = ""

    @property
    def name(self) -> str:
        return f"{self.run_id}/{self.file}"

    @property
    def partial(self) -> bool:
        """Whether it was stopped before every row was answered."""
        return self.scores["cancelled"]

    @property
    def counted(self) -> tuple[int, int]:
        """(rows that were answered, rows that were asked)."""
        return len(self.scores["rows"]), self.scores["total"]

    @cached_property
    def right(self) -> list[tuple[bool, bool]]:
        """Of each row whether the base's answer and the tuned one are right, judged once."""
        return [
            (verdict(row["target"], row["base"]).right, verdict(row["target"], row["tuned"]).right)
            for row in self.scores["rows"]
        ]

    @property
    def digest(self) -> str:
        """Of the adapter's content, "" where nobody wrote it down."""
        return self.scores.get("answered_by", {}).get("digest", "")

    @property
    def as_asked(self) -> dict[str, Any]:
        """The scores with the settings of the answers, as the command `evaluate` writes them."""
        return {**self.scores, "settings": self.settings}

    @property
    def step(self) -> int:
        return self.scores.get("answered_by", {}).get("step", 0)


_KIND = TypeAdapter(Scoreboard)


def new_file(checkpoint: str) -> str:
    """A name that no evaluation has had."""
    return f"{checkpoint}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"


def read_scoreboard(path: Path) -> Scoreboard:
    """Raises FileNotFoundError and StudioError `scores-damaged`."""
    board = read_record(path, _KIND, "scores-damaged")
    # The folder may have been copied, and the run with it.
    return dataclasses.replace(board, file=path.stem, run_id=path.parent.parent.name)


def write_scoreboard(path: Path, board: Scoreboard) -> None:
    """Whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    values = {item.name: getattr(board, item.name) for item in dataclasses.fields(board) if item.name != "file"}
    new = path.with_suffix(".new")
    new.write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(new, path)
