"""Every path of a workspace, from one root that is passed in. Touches the disk only in `ensure`."""

from dataclasses import dataclass
from pathlib import Path

from glmstudio.errors import StudioError
from glmstudio.file_names import is_fit, shown


@dataclass(frozen=True)
class Workspace:
    """`root` holds `data/` (database, snapshots) and `checkpoints/` (one folder a run)."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.data / 'glmstudio.sqlite'}"

    @property
    def snapshots(self) -> Path:
        return self.data / "snapshots"

    @property
    def log(self) -> Path:
        """Faults of the program, with their traces."""
        return self.data / "log" / "glmstudio.log"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def queue(self) -> Path:
        """The order of the runs that wait."""
        return self.checkpoints / "queue.json"

    @property
    def queue_lock(self) -> Path:
        """Held by the program that trains the runs that wait."""
        return self.checkpoints / "queue.lock"

    def run_folder(self, run_id: str) -> Path:
        """Raises StudioError `run-missing` for an id that leads out of `checkpoints`."""
        if not is_fit(run_id):
            raise StudioError("run-missing", folder=shown(run_id))
        return self.checkpoints / run_id

    def ensure(self) -> "Workspace":
        for folder in (self.data, self.snapshots, self.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        return self


def repository_root() -> Path:
    """The folder that holds `app.py`, `data/demo` and `data/embedded`."""
    return Path(__file__).resolve().parents[1]
