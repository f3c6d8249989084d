"""Language and colours are in the page before its own script, for this browser and the next visit."""

import contextlib

import pytest

from glmstudio.ui.preferences import Preferences

PAGE = '<html lang="en"><head><script src="x.js"></script></head><body><gradio-app></gradio-app></body></html>'


async def page(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(PAGE))]})
    await send({"type": "http.response.body", "body": PAGE[:30].encode(), "more_body": True})
    await send({"type": "http.response.body", "body": PAGE[30:].encode()})


def visit(headers: dict[str, str], path: str = "/", language: str = "") -> tuple[dict[str, str], str]:
    """(response headers, body) of one request."""
    sent = []

    async def keep(message):
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": pairs}
    # Nothing in it waits, so that it needs no event loop.
    with contextlib.suppress(StopIteration):
        Preferences(page, language=language, head="<style></style>")(scope, None, keep).send(None)
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return answered, b"".join(message["body"] for message in sent[1:]).decode()


def test_a_first_visit_gets_the_language_of_the_browser_and_keeps_it():
    headers, body = visit({"accept-language": "en-US,en;q=0.9"})
    assert headers["set-cookie"].startswith("glmstudio_language=en;")
    assert int(headers["content-length"]) == len(body.encode())
    assert '<html lang="en">' in body
    assert body.index('["language", "en"]') < body.index("</head>")
    assert "theme_mode" not in body


@pytest.mark.parametrize(("cookie", "language"), [("glmstudio_language=zh", "zh-CN"), ("glmstudio_language=<b>", "en")])
def test_a_known_cookie_wins_and_a_foreign_one_is_ignored(cookie, language):
    _, body = visit({"accept-language": "en", "cookie": cookie})
    assert f'<html lang="{language}">' in body
    assert "<b>" not in body


def test_the_argument_holds_until_the_browser_has_chosen():
    assert 'lang="zh-CN"' in visit({"accept-language": "en"}, language="zh")[1]
    assert 'lang="en"' in visit({"cookie": "glmstudio_language=en"}, language="zh")[1]


def test_chosen_colours_are_given_to_gradio():
    _, body = visit({"cookie": "glmstudio_theme=dark"})
    assert '<gradio-app theme_mode="dark"' in body


def test_anything_but_the_page_goes_through_untouched():
    headers, body = visit({"accept-language": "en"}, path="/theme.css")
    assert body == PAGE
    assert "set-cookie" not in headers
