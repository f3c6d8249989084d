"""The bases that could be used and the one that is: listing, looking, downloading, switching. Knows no words."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from glmstudio.environment import importing
from glmstudio.models.used_bases import remember, remembered
from glmstudio.settings import NO_BASE
from glmstudio.studio.base_slot import BaseSlot, BaseWish
from glmstudio.studio.jobs import Jobs, Report

if TYPE_CHECKING:
    from glmstudio.models.inspection.doctor import Diagnosis
    from glmstudio.models.inspection.library import LocalBase


class ModelShelf:
    """`refuse_switch` raises a StudioError while the base in `slot` cannot be taken away."""

    def __init__(self, root: Path, slot: BaseSlot, jobs: Jobs, refuse_switch: Callable[[], None]) -> None:
        self._root, self._slot, self._jobs, self._refuse_switch = root, slot, jobs, refuse_switch

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

        def fetch(report: Report, should_stop: Callable[[], bool]) -> None:
            from glmstudio.models.hubs.hub import fetch

            fetch(source, on_progress=lambda done, total, _: report(done, total), should_stop=should_stop)
            self._switch(source, quantization)

        self._jobs.begin("download", {"source": source}, fetch)

    def release(self) -> None:
        """Lets go of the resident base. Raises what keeps it from going, as `use` does."""
        self._slot.release(self._refuse_switch)

    def _switch(self, source: str, quantization: str) -> None:
        wish = replace(self._slot.wish, source=source, quantization=quantization)
        self._slot.switch(wish, self._refuse_switch)
        self._jobs.forget("download")


def slot_of(root: Path, wish: BaseWish) -> BaseSlot:
    """The place for a workspace's base. `NO_BASE` stands for the one that was used last, or the embedded one."""

    def on_ready(source: str) -> None:
        # A list that cannot be written is no reason to be without a base.
        with suppress(OSError):
            remember(root, source)

    used = [*remembered(root), BaseWish.source]
    return BaseSlot(replace(wish, source=used[0]) if wish.source == NO_BASE else wish, on_ready)


def with_hub(source: str, hub: str) -> str:
    """A hub id as it is written for that hub; folders and ids that name one already stay as they are."""
    from glmstudio.models.hubs.hub import HUGGINGFACE, is_hub_id

    bare = is_hub_id(source) and ":" not in source and not Path(source).expanduser().exists()
    return f"{hub}:{source}" if bare and hub not in ("", HUGGINGFACE) else source
