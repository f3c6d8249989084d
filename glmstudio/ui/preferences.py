"""Words, colours and scripts that must be in the page before Gradio's own script runs: the language and the colours of
two cookies, which last over a reload, and the page's style and script. Knows only HTTP."""

from http.cookies import SimpleCookie
from typing import Any

from glmstudio.ui.language import COOKIE, LANGUAGES, accepted_language

THEME_COOKIE = "glmstudio_theme"
THEMES = ("light", "dark")
_BROWSER_NAMES = {"zh": "zh-CN", "en": "en"}
_YEAR = 365 * 24 * 3600


class Preferences:
    """ASGI middleware around the page. `language` ("zh", "en" or "") holds where the browser has not chosen one; empty
    means what the browser asks for. `head` is HTML for the end of the page's head."""

    def __init__(self, app: Any, language: str = "", head: str = "") -> None:
        self.app, self.language, self.head = app, language, head

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        language, theme = self._wishes(headers)
        await self.app(scope, receive, _Rewriter(send, language, theme, self.head).send)

    def _wishes(self, headers: dict[str, str]) -> tuple[str, str]:
        """(language, theme) of one browser; the theme is empty where it follows the system."""
        cookies = SimpleCookie(headers.get("cookie", ""))
        language, theme = (cookies[name].value if name in cookies else "" for name in (COOKIE, THEME_COOKIE))
        if language not in LANGUAGES:
            language = self.language or accepted_language(headers.get("accept-language", ""))
        return language, theme if theme in THEMES else ""


class _Rewriter:
    """Holds one HTML response back until it is whole, then sends it with the wishes in it."""

    def __init__(self, send: Any, language: str, theme: str, head: str) -> None:
        self._send, self._language, self._theme, self._head = send, language, theme, head
        self._start: dict[str, Any] = {}
        self._body = b""

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if not message.get("more_body"):
            body = page_with(self._body.decode("utf-8"), self._language, self._theme, self._head).encode("utf-8")
            cookie = f"{COOKIE}={self._language}; Path=/; Max-Age={_YEAR}; SameSite=Lax"
            kept = [(name, value) for name, value in self._start["headers"] if name.lower() != b"content-length"]
            added = [(b"content-length", str(len(body)).encode()), (b"set-cookie", cookie.encode())]
            await self._send({**self._start, "headers": kept + added})
            await self._send({"type": "http.response.body", "body": body})


def page_with(html: str, language: str, theme: str, head: str) -> str:
    """Gradio's page, told its language and colours. `theme` is "light", "dark" or "" (the system's)."""
    name = _BROWSER_NAMES[language]
    dark = f"'{theme}' === 'dark'" if theme else "matchMedia('(prefers-color-scheme: dark)').matches"
    wishes = (
        f'<script>for (const [key, value] of [["language", "{name}"], ["languages", ["{name}"]]])'
        " Object.defineProperty(navigator, key, { get: () => value });"
        f" document.documentElement.classList.toggle('dark', {dark});</script>"
    )
    html = html.replace('lang="en"', f'lang="{name}"', 1).replace("</head>", f"{wishes}{head}</head>", 1)
    return html.replace("<gradio-app", f'<gradio-app theme_mode="{theme}"', 1) if theme else html
