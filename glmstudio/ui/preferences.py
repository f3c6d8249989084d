"""Language and colours that last over a reload: two cookies, set into the page before its own script runs.
Knows only HTTP; Gradio reads the language once, at its start, so nothing later than this can change it."""

from http.cookies import SimpleCookie
from typing import Any

from glmstudio.ui.language import COOKIE, LANGUAGES, accepted_language

THEME_COOKIE = "glmstudio_theme"
THEMES = ("light", "dark")
_BROWSER_NAMES = {"zh": "zh-CN", "en": "en"}
_BACKGROUNDS = {"light": "#f6f7f9", "dark": "#15171b"}
_YEAR = 365 * 24 * 3600


class Preferences:
    """ASGI middleware around the page. `language` ("zh", "en" or "") holds where the browser has not chosen one; empty
    means what the browser asks for."""

    def __init__(self, app: Any, language: str = "") -> None:
        self.app, self.language = app, language

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        await self.app(scope, receive, _Rewriter(send, *self._wishes(headers)).send)

    def _wishes(self, headers: dict[str, str]) -> tuple[str, str]:
        """(language, theme) of one browser; the theme is empty where it follows the system."""
        cookies = SimpleCookie(headers.get("cookie", ""))
        language, theme = (cookies[name].value if name in cookies else "" for name in (COOKIE, THEME_COOKIE))
        if language not in LANGUAGES:
            language = self.language or accepted_language(headers.get("accept-language", ""))
        return language, theme if theme in THEMES else ""


class _Rewriter:
    """Holds one HTML response back until it is whole, then sends it with the wishes in it."""

    def __init__(self, send: Any, language: str, theme: str) -> None:
        self._send, self._language, self._theme = send, language, theme
        self._start: dict[str, Any] = {}
        self._body = b""

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if not message.get("more_body"):
            body = page_with(self._body.decode("utf-8"), self._language, self._theme).encode("utf-8")
            cookie = f"{COOKIE}={self._language}; Path=/; Max-Age={_YEAR}; SameSite=Lax"
            kept = [(name, value) for name, value in self._start["headers"] if name.lower() != b"content-length"]
            added = [(b"content-length", str(len(body)).encode()), (b"set-cookie", cookie.encode())]
            await self._send({**self._start, "headers": kept + added})
            await self._send({"type": "http.response.body", "body": body})


def page_with(html: str, language: str, theme: str) -> str:
    """Gradio's page, told its language and colours. `theme` is "light", "dark" or "" (the system's)."""
    name = _BROWSER_NAMES[language]
    light, dark = (_BACKGROUNDS[theme or each] for each in THEMES)
    head = (
        f'<script>for (const [key, value] of [["language", "{name}"], ["languages", ["{name}"]]])'
        " Object.defineProperty(navigator, key, { get: () => value });</script>"
        f"<style>html:root {{ --bg: {light}; --bg-dark: {dark}; }}</style>"
    )
    html = html.replace('lang="en"', f'lang="{name}"', 1).replace("<head>", f"<head>{head}", 1)
    return html.replace("<gradio-app", f'<gradio-app theme_mode="{theme}"', 1) if theme else html
