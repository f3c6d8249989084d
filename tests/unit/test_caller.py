"""Each event of the page is its sender's, wherever Gradio runs it, and outside of one nobody gets in."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from glmstudio.data.example import Example
from glmstudio.data.row_reader import Query
from glmstudio.studio import Studio
from glmstudio.studio.base_slot import BaseStatus
from glmstudio.studio.look import Look
from glmstudio.ui.build import App
from glmstudio.ui.caller import calling
from glmstudio.ui.live import ROUTE, Live, LookRoute
from glmstudio.workspace import Workspace


def said_to(*names: str | None, handler: Callable[..., Any]) -> list[list[str]]:
    """What the events of these people say, all at once, each from its first word to its last."""
    with App() as blocks:
        gr.Button().click(handler, None, gr.Textbox())

    async def one(name: str | None) -> list[str]:
        request = SimpleNamespace(username=name, cookies={}, headers={})
        found = [await blocks.process_api(0, [], request=request)]
        while found[-1]["is_generating"]:
            found.append(await blocks.process_api(0, [], request=request, iterator=found[-1]["iterator"]))
        return [answer["data"][0] for answer in found if isinstance(answer["data"][0], str)]

    async def all_of_them() -> list[list[str]]:
        return await asyncio.gather(*map(one, names))

    # In a thread of its own: behind a browser's tests a loop runs in this one.
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(asyncio.run, all_of_them()).result()


def test_an_event_is_its_senders_however_it_is_written():
    def at_once() -> str:
        return calling().name

    async def later() -> str:
        await asyncio.sleep(0)
        return calling().name

    for handler in (at_once, later):
        assert said_to("li", None, "wu", handler=handler) == [["li"], [""], ["wu"]]


def test_an_answer_that_grows_stays_its_senders():
    def growing():
        for step in range(3):
            yield f"{step} {calling().name}"

    li, wu = said_to("li", "wu", handler=growing)
    assert [text.split()[-1] for text in li] == ["li"] * len(li)
    assert [text.split()[-1] for text in wu] == ["wu"] * len(wu)
    assert len(li) >= 3


def test_a_row_is_written_as_whoever_sent_the_event(tmp_path):
    studio = Studio(Workspace(tmp_path))
    page = studio.as_(calling)

    def save() -> str:
        return page.save_example(Example("i", calling().name, "y", dataset="shared")).annotator

    assert said_to("li", "wu", handler=save) == [["li"], ["wu"]]
    assert {(row.input, row.annotator) for row in studio.page(Query()).rows} == {("li", "li"), ("wu", "wu")}
    with pytest.raises(LookupError):
        page.datasets()
    studio.close()


def test_a_look_is_of_whoever_the_login_says():
    seen = []

    def look(*, fresh: bool) -> Look:
        seen.append(calling().name)
        return Look(BaseStatus("ready", "embedded"))

    app = Starlette(middleware=[Middleware(LookRoute, live=Live(SimpleNamespace(look=look)))])
    app.auth, app.cookie_id, app.tokens = True, "x", {"one": "li", "two": "wu"}
    client = TestClient(app)
    for token in ("one", "two"):
        assert client.get(ROUTE, headers={"cookie": f"access-token-unsecure-x={token}"}).status_code == 200
    assert seen == ["li", "wu"]
