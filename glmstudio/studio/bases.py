"""The bases that could be used and the one that is: listing, looking, downloading, switching. Knows no words."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from glmstudio.environment import importing
from glmstudio.errors import StudioError
from glmstudio.studio.base_slot import BaseSlot, Download, further
from glmstudio.studio.run_thread import RunThread

if TYPE_CHECKING:
    from glmstudio.models.inspection.doctor import Diagnosis
    from glmstudio.models.inspection.library import LocalBase


@dataclass(frozen=True)
class Fetching:
    """The download under way, or the last one. `state` is idle, running, done or failed; `job` is what a stop names."""

    state: str = "idle"
    job: str = ""
    source: str = ""
    download: Download | None = None
    error: StudioError | None = None


class ModelShelf:
    """`refuse_switch` raises a StudioError while the base in `slot` cannot be taken away."""

    def __init__(self, root: Path, slot: BaseSlot, refuse_switch: Callable[[], None]) -> None:
        self._root, self._slot, self._refuse_switch = root, slot, refuse_switch
        self._thread = RunThread(
            busy="download-active",
            bug=lambda reason: StudioError("base-failed", source=self._fetching.source, reason=reason),
            on_failure=self._fail,
        )
        self._fetching = Fetching()

    def bases(self) -> "list[LocalBase]":
        """Every base on this machine, the embedded one first. Reads headers only."""
        with importing:
            from glmstudio.models.inspection.library import bases_on_this_machine

        return bases_on_this_machine(self._root, held=self._slot.status().weight_bytes)

    def examine(self, source: str) -> "Diagnosis":
        """What a base is and whether it would load, answer and train. Raises StudioError as `doctor.examine` does."""
        with importing:
            from glmstudio.models.inspection.doctor import examine

        return examine(source)

    def use(self, source: str, quantization: str) -> None:
        """Puts another base in the place of the resident one; returns at once.

        What a hub has is downloaded first, while the resident one stays. Raises StudioError `base-missing`,
        `download-active`, what is wrong with a folder, and what keeps the resident base from going (`run-active`,
        `run-starting`, `base-evaluates`): it stays then.
        """
        with importing:
            from glmstudio.models.base_names import absolute
            from glmstudio.models.sources import folder_here

        self._slot.refuse_switch(self._refuse_switch)
        source = absolute(source)
        if folder_here(source):
            if problems := self.examine(source).problems:
                raise problems[0]
            self._switch(source, quantization)
            return

        def prepare() -> tuple[str, Callable[..., None]]:
            self._fetching = Fetching("running", uuid.uuid4().hex, source)
            return self._fetching.job, lambda should_stop: self._fetch(source, quantization, should_stop)

        self._thread.start(prepare)

    def fetching(self) -> Fetching:
        return self._fetching

    def stop(self, job: str) -> None:
        """Ends that download, where it is under way; what came is kept for the next try."""
        self._thread.stop(job)

    def close(self, seconds: float) -> None:
        self._thread.close(seconds)

    def _switch(self, source: str, quantization: str) -> None:
        from glmstudio.models.inspection.library import remember

        wish = replace(self._slot.wish, source=source, quantization=quantization)
        self._slot.switch(wish, self._refuse_switch)
        if self._fetching.state == "failed":
            self._fetching = Fetching()
        if Path(source).expanduser().is_dir():
            remember(self._root, source)

    def _fetch(self, source: str, quantization: str, should_stop: Callable[[], bool]) -> None:
        from glmstudio.models.hubs.hub import fetch

        def tell(done: int, total: int, file: str) -> None:
            self._fetching = replace(self._fetching, download=further(self._fetching.download, done, total))

        fetch(source, on_progress=tell, should_stop=should_stop)
        self._switch(source, quantization)
        self._fetching = replace(self._fetching, state="done")

    def _fail(self, error: StudioError) -> None:
        self._fetching = replace(self._fetching, state="failed", error=error)


def with_hub(source: str, hub: str) -> str:
    """A hub id as it is written for that hub; folders and ids that name one already stay as they are."""
    from glmstudio.models.hubs.hub import HUGGINGFACE, is_hub_id

    bare = is_hub_id(source) and ":" not in source and not Path(source).expanduser().exists()
    return f"{hub}:{source}" if bare and hub != HUGGINGFACE else source
