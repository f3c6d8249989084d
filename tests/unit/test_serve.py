"""Putting the page on the network: what Gradio is told at its start."""

from types import SimpleNamespace

import gradio as gr

from glmstudio.ui import serve
from glmstudio.ui.address import Address


def test_the_program_does_not_ask_itself_all_the_time_whether_somebody_clicked(monkeypatch) -> None:
    blocks = gr.Blocks()
    blocks.live = SimpleNamespace()
    # Under these names Gradio keeps the seconds; under others it would not hear.
    before = dict(vars(blocks._queue))
    monkeypatch.setattr(blocks, "launch", lambda **_: (None, "http://127.0.0.1", None))
    serve.launch(blocks, Address("127.0.0.1", None, False, "", ""))
    for name in ("sleep_when_free", "progress_update_sleep_when_free"):
        assert before[name] < getattr(blocks._queue, name) <= 0.1
