"""What the tabs of one page share: the status timer, the page's load event and the signals from tab to tab.
Knows no tab and no Studio."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.ui.language import label

if TYPE_CHECKING:
    from glmstudio.studio.jobs import BackgroundJob


@dataclass(frozen=True)
class Page:
    """Handed to each tab's `build(studio, page)`, which is called inside its `gr.Tab`.

    `tabs` holds the ids of `build.TABS`. `timer` ticks once a second at top level (a timer inside a tab starts late).
    Hidden fields are signals, heard with `.change`: `base_state` is the state and the base ("ready embedded");
    `refresh_examples` says "rows changed" (Annotate and Compare send `signal()`, Annotate's list listens);
    `refresh_datasets` says "datasets or their sizes changed" (Train, Compare and Annotate listen). Annotate sends it
    through `unseen_changes`, which waits until a tab is opened: looking at a large dataset after each row is slow.
    `ask` carries a prompt to Compare: JSON with `instruction`, `input`, `dataset`, `adapter` and a `signal()`.
    The language of a request is `language_of(request)`, who sends it says `caller(studio, request)`."""

    blocks: gr.Blocks
    tabs: gr.Tabs
    timer: gr.Timer
    base_state: gr.Textbox
    refresh_examples: gr.Textbox
    refresh_datasets: gr.Textbox
    unseen_changes: gr.Textbox
    ask: gr.Textbox

    def on_load(self, handler: Callable[..., Any], outputs: Sequence[Any], inputs: Sequence[Any] = ()) -> Any:
        """Run `handler` (it may take a `gr.Request`) when a browser opens the page. Past the queue, as all below."""
        return self.blocks.load(handler, list(inputs), list(outputs), **QUIET)

    def on_tick(self, handler: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """Run `handler` every second. It answers `gr.skip()` where nothing changed."""
        return self.timer.tick(handler, list(inputs), list(outputs), **QUIET)


QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
# For what may fail: Gradio shows no toast for the error of an event that runs past the queue.
QUEUED: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}


def signal_field(value: str = "") -> gr.Textbox:
    """A field for signals. A `gr.State` would not do: its `.change` is silent for handlers that run past the queue."""
    return gr.Textbox(value, visible="hidden", show_label=False)


# The script of a slot that a screen reader reads aloud when it changes.
LIVE = "element.setAttribute('aria-live', 'polite');"


def slot(elem_id: str, js_on_load: str | None = None, **more: Any) -> gr.HTML:
    """A place for HTML of our own, without Gradio's style."""
    return gr.HTML("", elem_id=elem_id, apply_default_css=False, js_on_load=js_on_load, **more)


def stepper(way: str, elem_id: str) -> gr.Button:
    """A small button to the "earlier" or "later" row: it shows an arrow, and its name is read aloud."""
    return gr.Button(
        label(f"page.{way}-row"), size="sm", min_width=30, scale=0, elem_id=elem_id, elem_classes=f"glm-step glm-{way}"
    )


def picks(selector: str, name: str) -> str:
    """The script of a slot whose `.pick` event carries, as `name`, that data attribute of the clicked `selector`."""
    return (
        f"element.addEventListener('click', event => {{ const found = event.target.closest('{selector}');"
        f" if (found) trigger('pick', {{ {name}: found.dataset.{name} }}); }});"
    )


def ended_job(now: "BackgroundJob | None") -> str:
    """The id of a job that is over: a page that opens later does not tell of it."""
    return "" if now is None or now.running else now.id


def signal() -> str:
    """A value that differs from the last one sent."""
    return str(time.monotonic_ns())
