"""Who sends a request to the page, and the studio as that person may use it."""

from typing import TYPE_CHECKING

import gradio as gr

from glmstudio.studio.people import Person

if TYPE_CHECKING:
    from glmstudio.studio import Studio


def caller(studio: "Studio", request: gr.Request | None) -> "Studio":
    """The verbs for the name that somebody logged in with, which is empty on a page without a password. Everybody who
    comes in is the owner."""
    return studio.as_(Person((request.username or "") if request is not None else ""))
