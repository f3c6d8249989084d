"""Studio's verbs for runs and their queue: look, stop, pause, order. Knows no page and no words."""

from typing import TYPE_CHECKING

from glmstudio.data import quality
from glmstudio.data.example import Example
from glmstudio.data.row_reader import Query
from glmstudio.errors import StudioError
from glmstudio.settings import TrainingSettings, recommended
from glmstudio.studio.base_slot import BaseSlot
from glmstudio.studio.rows import RowVerbs
from glmstudio.studio.run_queue import RunQueue
from glmstudio.training import metrics, resume, runs
from glmstudio.training.run_list import RunList
from glmstudio.workspace import Workspace

if TYPE_CHECKING:
    from glmstudio.training.train import Progress


class RunVerbs(RowVerbs):
    """The verbs over one queue and the folders of its runs."""

    _workspace: Workspace
    _base: BaseSlot
    _queue: RunQueue
    _runs: RunList

    def start_queue(self) -> None:
        """Lets the runs go on that wait since a restart, once the base is there. Raises as `BaseSlot.resident` does."""
        self._base.resident(load=True)
        self._queue.go()

    def stop_run(self, run_id: str) -> None:
        self._queue.stop(run_id)

    def pause_run(self, run_id: str) -> None:
        self._queue.pause(run_id)

    def continue_run(self, run_id: str) -> None:
        self._queue.go_on(run_id)

    def move_in_queue(self, run_id: str, places: int) -> None:
        """Moves a waiting run that many places, -1 is one nearer to its turn. Raises StudioError `run-not-queued`."""
        self._queue.move(run_id, places)

    def remove_from_queue(self, run_id: str) -> None:
        """Takes a waiting run out; one that has trained before stays, to be resumed. Raises StudioError
        `run-not-queued`."""
        self._queue.remove(run_id)

    def runs(self) -> list[runs.Run]:
        """Newest first."""
        return self._runs.look()[0]

    def run(self, run_id: str) -> "runs.Run":
        return runs.RunFolder(self._workspace.run_folder(run_id)).read()

    def active_run(self) -> "runs.Run | None":
        """None, too, where its `run.json` cannot be read any more."""
        run_id = self._queue.active_id
        try:
            return self.run(run_id) if run_id else None
        except StudioError:
            return None

    def progress(self, run_id: str) -> "Progress | None":
        """The latest progress of a run that this process trains or trained; None otherwise."""
        return self._queue.progress(run_id)

    def metrics(self, run_id: str, offset: int = 0) -> tuple[list[metrics.MetricRecord], int]:
        """The whole records after `offset` bytes and the next offset."""
        return metrics.read_from(runs.RunFolder(self._workspace.run_folder(run_id)).metrics_path, offset)

    def checkpoints(self, run_id: str) -> list[str]:
        return self._runs.checkpoints(run_id)

    def begins_anew(self, run_id: str) -> quality.Finding | None:
        """Why `resume_run` would begin at the first step again; None where it would not."""
        return resume.begins_anew(runs.RunFolder(self._workspace.run_folder(run_id)))

    def training_rows(self, dataset: str) -> tuple[list[Example], list[Example]]:
        """(train, dev): the rows that are done."""
        rows = self._store.iterate(Query(dataset=dataset, status="done"))
        # One may have moved while the others were read.
        done = [row for row in rows if (row.dataset, row.status) == (dataset, "done")]
        return [row for row in done if row.split == "train"], [row for row in done if row.split == "dev"]

    def default_settings(self, preset: str = "standard", method: str = "lora") -> TrainingSettings:
        return recommended(preset, demonstration=self._base.status().demonstration, method=method)
