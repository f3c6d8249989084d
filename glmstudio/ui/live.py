"""What pages look at while things go on: one small route that a page asks, past Gradio, and that answers with what has
changed in the open tab. Gradio's own events are woken only where a component is to change. Knows no tab.

A page that draws itself through Gradio's timer walks all of its components for each answer, also for an empty one."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import anyio.to_thread
import gradio as gr
from starlette.requests import Request
from starlette.responses import Response

from glmstudio import faults
from glmstudio.ui.caller import called_by, person_named
from glmstudio.ui.error_boundary import problem_html
from glmstudio.ui.language import language_of

if TYPE_CHECKING:
    from glmstudio.studio import Studio
    from glmstudio.studio.jobs import BackgroundJob
    from glmstudio.studio.look import Look
    from glmstudio.studio.people import Person

ROUTE = "/glm/look"
# Seconds until a page asks again: while something is under way, and else.
BUSY, CALM = 1.0, 3.0
_MOST_ASKED = 8192


@dataclass(frozen=True)
class Asked:
    """Who looks at what: the language, the open tab's name, and what the page says about itself (`look.js`)."""

    language: str
    tab: str
    page: Mapping[str, str]

    def told(self, job: "BackgroundJob | None") -> "BackgroundJob | None":
        """The job, where it was not over before the page was opened: such ones it does not tell of."""
        return None if job is None or job.id in self.page.get("ended", "").split() else job


Draw = Callable[["Look", Asked], str]
Mark = Callable[["Look", Asked], object]
Feed = Callable[["Look", Asked], Any]


@dataclass
class Live:
    """The parts of a page that follow the look; each belongs to a tab, "" is above them.

    `slots` are drawn as HTML by the page's own script; `feeds` hand it values; a wake is an event of Gradio's that runs
    where its mark has changed, for what only Gradio can change.
    """

    studio: "Studio"
    slots: dict[str, tuple[str, Draw]] = field(default_factory=dict)
    feeds: dict[str, tuple[str, Feed]] = field(default_factory=dict)
    wakes: dict[str, tuple[str, Mark]] = field(default_factory=dict)

    def slot(self, elem_id: str, tab: str, draw: Draw, *, js_on_load: str = "", **more: Any) -> gr.HTML:
        """A place whose HTML follows the look."""
        self.slots[elem_id] = tab, draw
        script = f"glm.place('{elem_id}', element);{js_on_load}"
        return gr.HTML("", elem_id=elem_id, apply_default_css=False, js_on_load=script, **more)

    def wake(self, name: str, tab: str, mark: Mark) -> Any:
        """Its `.wake` is an event that comes once the tab is open and whenever `mark` has changed since."""
        self.wakes[name] = tab, mark
        return gr.HTML("", visible="hidden", js_on_load=f"glm.onWake('{name}', () => trigger('wake'));")

    def answer(self, asked: Asked) -> dict[str, Any]:
        """What differs from what the page has."""
        look = self.studio.look(fresh="fresh" in asked.page)
        has = dict(pair.split(":", 1) for pair in asked.page.get("has", "").split() if ":" in pair)
        here = ("", asked.tab)
        slots = {}
        for name, (tab, draw) in self.slots.items():
            if tab in here:
                html = _drawn(draw, look, asked)
                if (mark := _mark(html)) != has.get(name):
                    slots[name] = [mark, html]
        feeds = {name: _fed(feed, look, asked) for name, (tab, feed) in self.feeds.items() if tab in here}
        return {
            "every": BUSY if look.busy else CALM,
            "slots": slots,
            "wakes": {name: marked(mark(look, asked)) for name, (tab, mark) in self.wakes.items() if tab in here},
            "feeds": {name: value for name, value in feeds.items() if value is not None},
            "ended": " ".join(job.id for job in look.jobs if not job.running),
        }


def _drawn(draw: Draw, look: "Look", asked: Asked) -> str:
    try:
        return draw(look, asked)
    except Exception as error:
        return problem_html(error, asked.language)


def _fed(feed: Feed, look: "Look", asked: Asked) -> Any:
    try:
        return feed(look, asked)
    except Exception as error:
        faults.record(error)
        return None


def marked(value: object) -> str:
    """What a page knows a value by, as it does those of `wake`'s marks."""
    return _mark(repr(value))


def _mark(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


class LookRoute:
    """ASGI middleware that answers `ROUTE` for who may see the page."""

    def __init__(self, app: Any, live: Live) -> None:
        self.app, self._live = app, live

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].endswith(ROUTE) and scope["method"] == "GET":
            await (await self._answer(Request(scope)))(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        query = request.scope["query_string"]
        if (person := _seen_by(request)) is None:
            return Response(status_code=401)
        if len(query) > _MOST_ASKED:
            return Response(status_code=414)
        page = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
        asked = Asked(language_of(request), page.get("tab", ""), page)
        with called_by(person):
            answer = await anyio.to_thread.run_sync(self._live.answer, asked)
        return Response(
            json.dumps(answer, ensure_ascii=False), media_type="application/json", headers={"cache-control": "no-store"}
        )


def _seen_by(request: Request) -> "Person | None":
    """Whom Gradio shows the page in this browser; None where it shows it to nobody."""
    app = request.scope["app"]
    if app.auth is None:
        return person_named(None)
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    tokens = (request.cookies.get(name) for name in names)
    return next((person_named(app.tokens[token]) for token in tokens if token in app.tokens), None)
