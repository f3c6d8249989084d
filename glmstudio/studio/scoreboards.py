"""Evaluations: one at a time on a background thread, each kept as a file of its own in its run's folder.
Knows no page, no words and no model: what answers and scores is handed in."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from glmstudio.data import snapshot
from glmstudio.data.example import Example
from glmstudio.data.records import KeptReads, Records, folders
from glmstudio.errors import StudioError
from glmstudio.evaluation.scoreboard import FOLDER, Scoreboard, new_file, read_scoreboard, write_scoreboard
from glmstudio.models.adapters.adapter_ref import AdapterRef
from glmstudio.settings import GenerationSettings
from glmstudio.studio.jobs import Jobs, Report

Evaluate = Callable[..., dict[str, Any]]


class Scoreboards:
    """`evaluate(examples, ref, settings, on_progress, should_stop)` gives the scores of one adapter and the base."""

    def __init__(self, checkpoints: Path, evaluate: Evaluate, jobs: Jobs) -> None:
        self._checkpoints, self._evaluate, self._jobs = checkpoints, evaluate, jobs
        self._records = Records(read_scoreboard)
        self._files: KeptReads[list[str]] = KeptReads()

    def start(self, dataset: str, examples: Sequence[Example], ref: AdapterRef, settings: GenerationSettings) -> str:
        """Starts it and gives its scoreboard's name. Where it is stopped the rows that were answered are scored and
        kept. Raises StudioError `evaluation-active`."""
        empty = Scoreboard(
            ref.run_id, ref.checkpoint, dataset, time.time(), {}, dataclasses.asdict(settings),
            snapshot.identity([], examples), new_file(ref.checkpoint),
        )  # fmt: skip

        def score(report: Report, should_stop: Callable[[], bool]) -> None:
            self._keep(empty, self._evaluate(list(examples), ref, settings, report, should_stop))

        self._jobs.begin("evaluation", {"adapter": ref.name, "dataset": dataset}, score, total=len(examples))
        return empty.name

    def look(self) -> tuple[list[Scoreboard], list[StudioError]]:
        """(every scoreboard there is, the newest first; what is wrong with the files that are damaged)."""
        places = [f"{run}/{FOLDER}" for run in folders(self._checkpoints)]
        self._files.keep_only(places)
        found, damaged = self._records.look(
            path for place in places for path in self._files.get(place, partial(_files, place))
        )
        return sorted(found, key=lambda board: board.created_at, reverse=True), damaged

    def all(self) -> list[Scoreboard]:
        """Every scoreboard there is, the newest first."""
        return self.look()[0]

    def of(self, ref: AdapterRef, changed_at: float) -> Scoreboard | None:
        """The newest one of this content of the checkpoint, a whole one before a partial one. Those that do not say
        which content they are of must be newer than its files, which were changed at `changed_at`."""
        found = [
            board
            for board in self.all()
            if (board.run_id, board.checkpoint) == (ref.run_id, ref.checkpoint)
            and (board.digest == ref.digest if board.digest else board.created_at >= changed_at)
        ]
        return min(found, key=lambda board: board.partial, default=None)

    def _keep(self, board: Scoreboard, scores: dict[str, Any]) -> None:
        if scores["rows"]:
            path = self._checkpoints / board.run_id / FOLDER / f"{board.file}.json"
            # What was asked for may be the length that was trained; the record says which.
            used = {name: scores[name] for name in board.settings.keys() & scores.keys()}
            write_scoreboard(path, replace(board, scores=scores, settings=board.settings | used))


def _files(place: str) -> tuple[list[str], list[str]]:
    return [str(path) for path in Path(place).glob("*.json")], [place]
