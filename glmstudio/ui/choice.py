"""A dropdown whose list comes while the page is open. Knows no list."""

from typing import Any

import gradio as gr


class Choice(gr.Dropdown):
    """Hands over what was chosen without looking it up: who uses the value says whether it still holds.

    Gradio compares with the list this browser was sent last; after a restart of the program, or before the list has
    arrived, that is an empty one, and every event of an open page would fail.
    """

    def preprocess(self, payload: Any) -> Any:
        return payload

    def get_block_name(self) -> str:
        return "dropdown"
