"""One picture a second for the whole program, and what a page is told of it: what changed in the open tab, no more."""

import threading
import time
from types import SimpleNamespace

import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from glmstudio.errors import StudioError
from glmstudio.studio import Studio
from glmstudio.studio.base_slot import BaseStatus
from glmstudio.studio.jobs import BackgroundJob
from glmstudio.studio.look import Look, Looks
from glmstudio.studio.people import OWNER
from glmstudio.ui.build import TABS, build_app
from glmstudio.ui.caller import called_by
from glmstudio.ui.live import BUSY, CALM, ROUTE, Asked, Live, LookRoute
from glmstudio.workspace import Workspace

READY, LOADING = BaseStatus("ready", "embedded"), BaseStatus("loading", "embedded")


def test_a_picture_is_made_once_a_second_and_anew_for_who_has_done_something(monkeypatch):
    now, made = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    looks = Looks(lambda: made.append(1) or Look(READY, probed=len(made)))
    assert looks.look() is looks.look()
    now[0] += 0.9
    assert looks.look().probed == 1
    assert looks.look(fresh=True).probed == 2
    now[0] += 0.9
    assert looks.look().probed == 2
    now[0] += 0.2
    assert looks.look().probed == 3


def test_who_comes_while_a_picture_is_made_gets_the_same():
    begun, go_on = threading.Event(), threading.Event()
    made = []

    def make() -> Look:
        made.append(1)
        begun.set()
        go_on.wait()
        return Look(READY)

    looks, got = Looks(make), []
    threads = [threading.Thread(target=lambda: got.append(looks.look())) for _ in range(4)]
    threads[0].start()
    begun.wait()
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert all(look is got[0] for look in got)


@pytest.mark.parametrize(
    ("look", "busy"),
    [
        (Look(READY), False),
        (Look(LOADING), True),
        (Look(READY, probing=True), True),
        (Look(READY, jobs=(BackgroundJob("1", "export", {}),)), True),
        (Look(READY, jobs=(BackgroundJob("1", "export", {}, state="done"),)), False),
        (Look(READY, active=SimpleNamespace(status="running")), True),
        (Look(READY, active=SimpleNamespace(status="paused")), False),
    ],
)
def test_a_page_asks_often_only_while_something_is_under_way(look, busy):
    assert look.busy == busy
    assert live_over(look).answer(Asked("en", "", {}))["every"] == (BUSY if busy else CALM)


def live_over(look: Look) -> Live:
    return Live(SimpleNamespace(look=lambda *, fresh: look))


def parts(live: Live) -> Live:
    live.slots["top"] = "", lambda look, asked: f"<b>{asked.language}</b>"
    live.slots["here"] = "train", lambda look, asked: look.base.source
    live.slots["there"] = "models", lambda look, asked: "models"
    live.feeds["points"] = "train", lambda look, asked: None if asked.page.get("have") else [1, 2]
    live.wakes["base"] = "train", lambda look, asked: look.base.state
    live.wakes["other"] = "models", lambda look, asked: look.base.state
    return live


def test_a_page_is_told_of_the_open_tab_and_only_what_it_has_not():
    live = parts(live_over(Look(READY)))
    first = live.answer(Asked("en", "train", {}))
    assert {name: html for name, (_, html) in first["slots"].items()} == {"top": "<b>en</b>", "here": "embedded"}
    assert first["feeds"] == {"points": [1, 2]}
    assert set(first["wakes"]) == {"base"}
    has = " ".join(f"{name}:{mark}" for name, (mark, _) in first["slots"].items())
    second = live.answer(Asked("en", "train", {"has": has, "have": "2"}))
    assert (second["slots"], second["feeds"], second["wakes"]) == ({}, {}, first["wakes"])
    assert set(live.answer(Asked("zh", "train", {"has": has}))["slots"]) == {"top"}
    assert live.answer(Asked("zh", "", {"has": "nonsense :: x:y"}))["slots"].keys() == {"top"}


def test_a_wake_changes_with_its_mark():
    marks = [
        parts(live_over(Look(base))).answer(Asked("en", "train", {}))["wakes"]["base"] for base in (READY, LOADING)
    ]
    assert marks[0] != marks[1]


def test_a_part_that_cannot_be_drawn_says_so_in_its_place_and_the_others_are_there():
    live = parts(live_over(Look(READY)))

    def broken(look: Look, asked: Asked) -> str:
        raise StudioError("name-empty")

    live.slots["broken"] = "train", broken
    live.feeds["broken"] = "train", broken
    slots = live.answer(Asked("en", "train", {}))["slots"]
    assert set(slots) == {"top", "here", "broken"}
    assert "glm-bad" in slots["broken"][1]


def test_a_page_does_not_tell_of_jobs_that_were_over_before_it_was_opened():
    job = BackgroundJob("7", "export", {}, state="failed")
    ended = live_over(Look(READY, jobs=(job,))).answer(Asked("en", "", {}))["ended"]
    assert Asked("en", "", {"ended": ended}).told(job) is None
    assert Asked("en", "", {"ended": ""}).told(job) is job
    assert Asked("en", "", {"ended": ended}).told(None) is None


@pytest.fixture
def client() -> TestClient:
    app = Starlette(middleware=[Middleware(LookRoute, live=parts(live_over(Look(READY))))])
    app.auth, app.cookie_id, app.tokens = None, "x", {"good": "li"}
    return TestClient(app)


def test_the_route_answers_under_any_path_and_leaves_the_rest_alone(client):
    for path in (ROUTE, f"/studio{ROUTE}"):
        answer = client.get(f"{path}?tab=train&fresh=", headers={"accept-language": "en"})
        assert answer.json()["slots"]["top"][1] == "<b>en</b>"
        assert answer.headers["cache-control"] == "no-store"
    assert client.get("/other").status_code == 404
    assert client.post(ROUTE).status_code == 404
    assert client.get(f"{ROUTE}?has={'x' * 9000}").status_code == 414


def test_the_route_asks_for_the_login_that_the_page_asks_for(client):
    client.app.auth = lambda name, password: True
    assert client.get(ROUTE).status_code == 401
    for cookie, status in (
        ("access-token-x=bad", 401),
        ("access-token-unsecure-x=good", 200),
        ("access-token-x=good", 200),
    ):
        assert client.get(ROUTE, headers={"cookie": cookie}).status_code == status


def test_nothing_on_the_page_ticks_by_itself(tmp_path):
    studio = Studio(Workspace(tmp_path))
    blocks = build_app(studio)
    assert not [block for block in blocks.blocks.values() if isinstance(block, gr.Timer)]
    tabs = {tab for parts in (blocks.live.slots, blocks.live.feeds, blocks.live.wakes) for tab, _ in parts.values()}
    assert tabs <= {"", *TABS}
    # Every part of every tab can be drawn over an empty workspace.
    for tab in TABS:
        with called_by(OWNER):
            answer = blocks.live.answer(Asked("zh", tab, {}))
        assert not any("glm-bad" in html for _, html in answer["slots"].values())
    studio.close()
