"""Keeps what a person typed over a reload, in the browser itself. Knows no field's meaning.

`gr.BrowserState` is not there before its tab was opened, so the browser's own storage is used.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.ui.page import QUIET

if TYPE_CHECKING:
    from glmstudio.ui.page import Page


def keep(page: "Page", name: str, components: Sequence[gr.components.Component]) -> Any:
    """Stores the components' values with each change and brings them back when the page opens: gives that event.

    Values of another number of components, from an older page, are left alone.
    """
    key, count = json.dumps(f"glmstudio-{name}"), len(components)
    store = f"(...values) => localStorage.setItem({key}, JSON.stringify(values.slice(0, {count})))"
    bring = (
        f"() => {{ const kept = JSON.parse(localStorage.getItem({key}) ?? '[]');"
        f" return kept.length === {count} ? kept : Array({count}).fill({{ __type__: 'update' }}); }}"
    )
    items = list(components)
    gr.on([item.change for item in items], None, items, None, js=store, **QUIET)
    return page.blocks.load(None, None, items, js=bring, **QUIET)
