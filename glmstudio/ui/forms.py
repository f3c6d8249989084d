"""Settings dataclasses → form components, and typed values → settings. Knows gradio's inputs, no tab and no Studio.

A field's kind, bounds and choices come from the dataclass; its label and help from the word lists under its name.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import gradio as gr

from glmstudio.errors import StudioError
from glmstudio.ui.language import LANGUAGES, label, words


@dataclass(frozen=True)
class Field:
    """One field of a settings dataclass: `kind` is its Python type, `choices` its closed list (or empty)."""

    name: str
    kind: type
    choices: tuple[str, ...]

    def component(self, value: Any, prefix: str) -> gr.components.Component:
        """The input for this field, with `elem_id` `<prefix>-<name>`. Bounds stand in the check, not in the input:
        gradio answers a value beyond them with a toast in English and a traceback."""
        common = {
            "label": label(f"setting.{self.name}.label"),
            "info": label(f"setting.{self.name}.help"),
            "elem_id": f"{prefix}-{self.name.replace('_', '-')}",
            "interactive": True,
        }
        if self.choices:
            worded = [(label(self._word(choice)), choice) for choice in self.choices]
            return gr.Dropdown(worded, value=value, min_width=100, **common)
        if self.kind is bool:
            return gr.Checkbox(value, min_width=100, **common)
        if self.kind in (int, float):
            return gr.Number(self.shown(value), min_width=70, step=1 if self.kind is int else None, **common)
        return gr.Textbox(self.shown(value), min_width=100, max_lines=1, **common)

    def _word(self, choice: str) -> str:
        """The key of a choice's word: the field's own where it has one."""
        own = f"choice.{self.name}.{choice}"
        return own if own in words(LANGUAGES[0]) else f"choice.{choice}"

    def shown(self, value: Any) -> Any:
        """What the input shows for a setting."""
        return ", ".join(value) if isinstance(value, tuple) else value

    def parsed(self, value: Any) -> Any:
        """The setting for what was typed. Raises StudioError `setting-empty`, `setting-whole`."""
        if self.kind in (int, float):
            if value is None or not math.isfinite(value):
                raise StudioError("setting-empty", field=self.name)
            if self.kind is int and value != int(value):
                raise StudioError("setting-whole", field=self.name, value=value)
            return self.kind(value)
        if self.kind in (bool, str):
            return self.kind(value)
        return tuple(word for word in (value or "").replace("，", ",").replace(",", " ").split())


class Form:
    """The fields of several settings dataclasses as one flat list of inputs, in the order they were placed."""

    def __init__(self, prefix: str, *defaults: Any) -> None:
        self.prefix = prefix
        self._values = {
            item.name: getattr(owner, item.name) for owner in defaults for item in dataclasses.fields(owner)
        }
        self._fields = {found.name: found for owner in defaults for found in fields_of(type(owner))}
        self._owners = [type(owner) for owner in defaults]
        self._placed: dict[str, gr.components.Component] = {}

    def place(self, *names: str) -> None:
        """Puts the inputs of these fields where the layout stands."""
        for name in names:
            self._placed[name] = self._fields[name].component(self._values[name], self.prefix)

    def place_rest(self) -> None:
        """Puts every field that has no input yet."""
        self.place(*(name for name in self._fields if name not in self._placed))

    def component(self, name: str) -> gr.components.Component:
        """The input of one field."""
        return self._placed[name]

    def shown(self, name: str, value: Any) -> Any:
        """What the input of a field shows for a setting."""
        return self._fields[name].shown(value)

    @property
    def inputs(self) -> list[gr.components.Component]:
        return list(self._placed.values())

    def updates(self, *settings: Any) -> list[Any]:
        """A value for each of `inputs`; fields that none of `settings` has stay as they are."""
        values = {item.name: getattr(owner, item.name) for owner in settings for item in dataclasses.fields(owner)}
        return [self._fields[name].shown(values[name]) if name in values else gr.skip() for name in self._placed]

    def read(self, typed: Sequence[Any]) -> tuple[tuple[Any, ...], list[StudioError]]:
        """Typed values, in the order of `inputs` → (one settings object per dataclass, what could not be read).

        A field that could not be read keeps its default, so that the rest can still be checked.
        """
        parsed, problems = dict(self._values), []
        for name, value in zip(self._placed, typed, strict=True):
            try:
                parsed[name] = self._fields[name].parsed(value)
            except StudioError as problem:
                problems.append(problem)
        return tuple(_built(owner, parsed) for owner in self._owners), problems


def fields_of(owner: type) -> list[Field]:
    """The fields of a settings dataclass, in their order."""
    hints = get_type_hints(owner)
    return [
        Field(item.name, hints[item.name], tuple(item.metadata.get("choices", ())))
        for item in dataclasses.fields(owner)
    ]


def _built(owner: type, values: Mapping[str, Any]) -> Any:
    return owner(**{item.name: values[item.name] for item in dataclasses.fields(owner)})
