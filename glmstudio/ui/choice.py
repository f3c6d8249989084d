"""A dropdown whose list comes while the page is open, and the one of datasets. Knows no tab."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.ui.page import QUIET
from glmstudio.ui.row_words import dataset_choices

if TYPE_CHECKING:
    from glmstudio.studio import Studio
    from glmstudio.ui.page import Page


class Choice(gr.Dropdown):
    """Hands over what was chosen without looking it up: who uses the value says whether it still holds.

    Gradio compares with the list this browser was sent last; after a restart of the program, or before the list has
    arrived, that is an empty one, and every event of an open page would fail.
    """

    def preprocess(self, payload: Any) -> Any:
        return payload

    def get_block_name(self) -> str:
        return "dropdown"


def follow_datasets(choice: Choice, studio: "Studio", page: "Page", opened: Any) -> Any:
    """Fills `choice` after the event `opened` and whenever datasets have changed; gives that second event.

    What was chosen stays while it exists; at first, and else, it is the largest one.
    """

    def offer(chosen: str | None) -> Any:
        summaries = [summary for summary in studio.datasets() if summary.name]
        choices = dataset_choices(summaries)
        largest = max(summaries, key=lambda summary: summary.total).name if summaries else None
        return gr.update(choices=choices, value=chosen if chosen in dict(choices).values() else largest)

    opened.then(offer, choice, choice, **QUIET)
    # Several listeners that keep only the last of a burst would wake each other for ever.
    return page.refresh_datasets.change(offer, choice, choice, trigger_mode="multiple", **QUIET)
