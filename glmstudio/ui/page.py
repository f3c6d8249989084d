"""What the tabs of one page share: the status timer, the page's load event and the signals from tab to tab.
Knows no tab and no Studio."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr


@dataclass(frozen=True)
class Page:
    """Handed to each tab's `build(studio, page)`, which is called inside its `gr.Tab`.

    `timer` ticks once a second at top level (a timer inside a tab starts late). `refresh_examples` and `refresh_datasets`
    are signals: a handler puts `signal()` into one as an output, the listener uses `.change`. The first says "rows changed
    outside Annotate" (Compare sends, Annotate listens), the second "the list of datasets or their sizes changed"
    (Annotate sends, Train and Compare listen). The language of a request is `language_of(request)`."""

    blocks: gr.Blocks
    tabs: gr.Tabs
    timer: gr.Timer
    refresh_examples: gr.State
    refresh_datasets: gr.State

    def on_load(self, handler: Callable[..., Any], outputs: Sequence[gr.components.Component]) -> None:
        """Run `handler` (it may take a `gr.Request`) when a browser opens the page, past the queue."""
        self.blocks.load(handler, None, list(outputs), queue=False, show_progress="hidden", api_visibility="private")

    def on_tick(self, handler: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Run `handler` every second, past the queue. It answers `gr.skip()` where nothing changed."""
        self.timer.tick(
            handler, list(inputs), list(outputs), queue=False, show_progress="hidden", api_visibility="private"
        )


def signal() -> int:
    """A value that differs from the last one sent."""
    import time

    return time.monotonic_ns()
