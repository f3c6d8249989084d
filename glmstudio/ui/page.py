"""What the tabs of one page share: what follows the look, the page's load event and the signals from tab to tab.
Knows no tab and no Studio."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from glmstudio.ui.language import label
from glmstudio.ui.live import Live, Mark


@dataclass(frozen=True)
class Page:
    """Handed to each tab's `build(studio, page)`, which is called inside its `gr.Tab`.

    `tabs` holds the ids of `build.TABS`. `live` holds what follows the look.
    Hidden fields are signals, heard with `.change`: `base_state` is the state and the base ("ready embedded");
    `refresh_examples` says "rows changed" (Annotate and Compare send `signal()`, Annotate's list listens);
    `refresh_datasets` says "datasets or their sizes changed" (Train, Compare and Annotate listen). Annotate sends it
    through `unseen_changes`, which waits until a tab is opened: looking at a large dataset after each row is slow.
    `ask` carries a prompt to Compare: JSON with `instruction`, `input`, `dataset`, `adapter` and a `signal()`.
    The language of a request is `language_of(request)`, who sent it is whom the studio
    is called by (`caller`)."""

    blocks: gr.Blocks
    tabs: gr.Tabs
    live: Live
    base_state: gr.Textbox
    refresh_examples: gr.Textbox
    refresh_datasets: gr.Textbox
    unseen_changes: gr.Textbox
    ask: gr.Textbox

    def on_load(self, handler: Callable[..., Any], outputs: Sequence[Any], inputs: Sequence[Any] = ()) -> Any:
        """Run `handler` (it may take a `gr.Request`) when a browser opens the page. Past the queue, as all below."""
        return self.blocks.load(handler, list(inputs), list(outputs), **QUIET)

    def on_wake(
        self,
        tab: str,
        mark: Mark,
        handler: Callable[..., Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        *,
        name: str = "",
        js: str | None = None,
    ) -> Any:
        """Run `handler` when the tab is opened first, and whenever `mark` has changed while it is open. A tab with
        several of them gives each a `name`; `js` may fill inputs."""
        waker = self.live.wake(name or tab or "page", tab, mark)
        # One that comes while another is under way runs behind it: it knows more.
        return waker.wake(handler, list(inputs), list(outputs), js=js, trigger_mode="always_last", **QUIET)


QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
# For what may fail: Gradio shows no toast for the error of an event that runs past the queue.
QUEUED: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}


def signal_field(value: str = "") -> gr.Textbox:
    """A field for signals. A `gr.State` would not do: its `.change` is silent for handlers that run past the queue."""
    return gr.Textbox(value, visible="hidden", show_label=False)


# Shows at once what an event has changed, for what follows the look.
LOOK = "() => { glm.look(); }"
# The same for an event that goes on: shortly after it has begun.
LOOK_SOON = "() => { setTimeout(glm.look, 300); }"
# The script of a slot that a screen reader reads aloud when it changes.
LIVE = "element.setAttribute('aria-live', 'polite');"


def look_after(event: Any, js: str = LOOK) -> None:
    """Shows at once what an event has done, also where it failed: the next look finds what is."""
    event.then(None, js=js, **QUIET)


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


def signal() -> str:
    """A value that differs from the last one sent."""
    return str(time.monotonic_ns())
