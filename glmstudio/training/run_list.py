"""The runs of a workspace and their checkpoints, and those that were under way when their process died."""

from collections.abc import Collection
from pathlib import Path

from glmstudio.data.records import KeptReads, Records, folders
from glmstudio.errors import StudioError
from glmstudio.training.runs import LIVE, Run, RunFolder, is_alive


class RunList:
    """The runs in a folder and their checkpoints, looked at again only where they have changed."""

    def __init__(self, checkpoints: Path) -> None:
        self._checkpoints = checkpoints
        self._records = Records(lambda path: RunFolder(path.parent).read())
        self._adapters: KeptReads[list[str]] = KeptReads()

    def look(self) -> tuple[list[Run], list[StudioError]]:
        """(the runs, the newest first; what is wrong with each `run.json` that is damaged)."""
        found, damaged = self._records.look(f"{folder}/run.json" for folder in folders(self._checkpoints))
        self._adapters.keep_only([run.id for run in found])
        return sorted(found, key=lambda run: (run.created_at, run.id), reverse=True), damaged

    def checkpoints(self, run_id: str) -> list[str]:
        """As `RunFolder.checkpoints`."""
        folder = RunFolder(self._checkpoints / run_id)

        def read() -> tuple[list[str], list[str]]:
            names, path = folder.candidates(), str(folder.path)
            # What lies aside is seen by the folder that it lies in.
            return folder.checkpoints(), [path, str(folder.aside), *(f"{path}/{name}" for name in names)]

        return self._adapters.get(run_id, read)


def list_runs(checkpoints: Path) -> list[Run]:
    """The runs in the folder, the newest first; folders without a readable `run.json` are none."""
    return RunList(checkpoints).look()[0]


def mark_interrupted(checkpoints: Path, waiting: Collection[str] = ()) -> list[Run]:
    """Runs that were under way when their process died become `interrupted`; gives those. `waiting` are the ids of
    runs that wait in a queue, which outlives its process."""
    dead = [
        run
        for run in list_runs(checkpoints)
        if run.status in LIVE and not is_alive(run) and not (run.status == "queued" and run.id in waiting)
    ]
    return [RunFolder(checkpoints / run.id).mark_interrupted() for run in dead]
