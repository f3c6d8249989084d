"""Evaluations: one at a time on a background thread, each kept as a JSON file in its run's folder.
Knows no page, no words and no model: what answers and scores is handed in."""

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glmstudio.data.example import Example
from glmstudio.errors import StudioError
from glmstudio.run_thread import RunThread

FOLDER = "scores"
Evaluate = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Evaluation:
    """The evaluation under way, or the last one. `state` is idle, running, done or failed; `done` of `total` rows."""

    state: str = "idle"
    name: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    error: StudioError | None = None


@dataclass(frozen=True)
class Scoreboard:
    """What a file says: `scores` is what `evaluate` gave (totals of base and tuned, rows, total, cancelled)."""

    run_id: str
    checkpoint: str
    dataset: str
    created_at: float
    scores: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.run_id}@{self.checkpoint}/{_slug(self.dataset)}"


class Scoreboards:
    """`evaluate(examples, ref, settings, on_progress, should_stop)` gives the scores of one adapter and the base."""

    def __init__(self, checkpoints: Path, evaluate: Evaluate) -> None:
        self._checkpoints = checkpoints
        self._evaluate = evaluate
        self._thread = RunThread(
            busy="evaluation-active",
            bug=lambda reason: StudioError("evaluation-failed", reason=reason),
            on_failure=self._fail,
        )
        self._now = Evaluation()

    def start(self, dataset: str, examples: Sequence[Example], ref: Any, settings: Any) -> str:
        """Starts it and gives its scoreboard's name. Raises StudioError `evaluation-active`."""
        empty = Scoreboard(ref.run_id, ref.checkpoint, dataset, time.time(), {})

        def prepare() -> tuple[str, Callable[..., None]]:
            self._now = Evaluation("running", empty.name, total=len(examples))
            return empty.name, lambda should_stop: self._work(empty, examples, ref, settings, should_stop)

        return self._thread.start(prepare)

    def stop(self) -> None:
        """Asks the evaluation to stop; the rows that were answered are kept and scored."""
        self._thread.stop()

    def close(self, seconds: float) -> None:
        self._thread.close(seconds)

    def now(self) -> Evaluation:
        return self._now

    def all(self) -> list[Scoreboard]:
        """Every scoreboard there is, the newest first; files that cannot be read are none."""
        found = []
        for path in self._checkpoints.glob(f"*/{FOLDER}/*.json"):
            try:
                found.append(Scoreboard(**json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError):
                continue
        return sorted(found, key=lambda board: board.created_at, reverse=True)

    def path(self, run_id: str, checkpoint: str, dataset: str) -> Path:
        return self._checkpoints / run_id / FOLDER / f"{checkpoint}-{_slug(dataset)}.json"

    def _work(
        self, board: Scoreboard, examples: Sequence[Example], ref: Any, settings: Any, should_stop: Callable[[], bool]
    ) -> None:
        started = time.monotonic()

        def tell(done: int, total: int) -> None:
            left = (time.monotonic() - started) / done * (total - done)
            self._now = replace(self._now, done=done, total=total, seconds_left=left)

        scores = self._evaluate(list(examples), ref, settings, tell, should_stop)
        if scores["rows"]:
            self._write(replace(board, scores=scores))
        self._now = replace(self._now, state="done", seconds_left=None)

    def _fail(self, error: StudioError) -> None:
        self._now = replace(self._now, state="failed", error=error)

    def _write(self, board: Scoreboard) -> None:
        path = self.path(board.run_id, board.checkpoint, board.dataset)
        path.parent.mkdir(exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(vars(board), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(new, path)


def _slug(dataset: str) -> str:
    """A dataset's name as a part of a file name; letters of every script stay."""
    return re.sub(r"[^\w.-]+", "_", dataset) or "_"
