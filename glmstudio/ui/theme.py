"""Colours, fonts and sizes of the page: Gradio's theme over the tokens of `style.css`, which every tab uses."""

import inspect
from pathlib import Path

import gradio as gr

_HERE = Path(__file__).parent
ICON = _HERE / "icon.svg"
# The tokens come first; each tab has a sheet of its own.
_SHEETS = (
    "style.css", "header.css", "annotate.css", "train.css", "compare.css", "evaluate.css", "models.css", "narrow.css"
)  # fmt: skip
_SCRIPTS = ("clocks.js", "page.js", "look.js", "address.js", "drafts.js")
SANS = ("system-ui", "-apple-system", "Segoe UI", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Consolas", "DejaVu Sans Mono", "Noto Sans Mono CJK SC", "monospace")


def head() -> str:
    """Style and script of the page, for its head: there they hold before Gradio has built anything, and unscoped."""
    sheets = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in _SHEETS)
    script = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return f"<style>{sheets}</style><script>{script}</script>"


def build_theme() -> gr.themes.Base:
    """Small, calm, one accent. Each colour is a token, so that light and dark are told apart in one place."""
    theme = gr.themes.Base(
        font=[gr.themes.Font(name) for name in SANS],
        font_mono=[gr.themes.Font(name) for name in MONO],
        text_size=gr.themes.sizes.text_sm,
        spacing_size=gr.themes.sizes.spacing_sm,
        radius_size=gr.themes.sizes.radius_sm,
    )
    known = inspect.signature(theme.set).parameters
    dark = {f"{name}_dark": value for name, value in _TOKENS.items() if f"{name}_dark" in known}
    return theme.set(**_TOKENS, **dark)


_TOKENS = {
    "body_background_fill": "var(--glm-page)",
    "body_text_color": "var(--glm-text)",
    "body_text_color_subdued": "var(--glm-muted)",
    "background_fill_primary": "var(--glm-surface)",
    "background_fill_secondary": "var(--glm-page)",
    "border_color_primary": "var(--glm-line)",
    "border_color_accent": "var(--glm-accent)",
    "color_accent": "var(--glm-accent)",
    "color_accent_soft": "var(--glm-accent-soft)",
    "link_text_color": "var(--glm-accent)",
    "block_background_fill": "var(--glm-surface)",
    "block_border_color": "var(--glm-line)",
    "block_label_background_fill": "transparent",
    "block_label_text_color": "var(--glm-muted)",
    "block_title_text_color": "var(--glm-muted)",
    "block_info_text_color": "var(--glm-muted)",
    "input_background_fill": "var(--glm-field)",
    "input_border_width": "1px",
    "input_border_color": "var(--glm-line)",
    "input_border_color_focus": "var(--glm-accent)",
    "input_placeholder_color": "var(--glm-faint)",
    "button_primary_background_fill": "var(--glm-accent)",
    "button_primary_background_fill_hover": "var(--glm-accent-strong)",
    "button_primary_text_color": "var(--glm-on-accent)",
    "button_secondary_background_fill": "var(--glm-field)",
    "button_secondary_background_fill_hover": "var(--glm-hover)",
    "button_secondary_text_color": "var(--glm-text)",
    "button_secondary_border_color": "var(--glm-line)",
    "slider_color": "var(--glm-accent)",
    "checkbox_background_color_selected": "var(--glm-accent)",
    "checkbox_border_color_selected": "var(--glm-accent)",
    "checkbox_label_background_fill": "transparent",
    "checkbox_label_background_fill_selected": "var(--glm-accent-soft)",
    "checkbox_label_text_color_selected": "var(--glm-text)",
}
