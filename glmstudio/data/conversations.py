"""A conversation as other programs write it (ShareGPT's `from` and `value`, OpenAI's `role` and `content`) as the parts
of one row: the last question and its answer, what was said before, what the system said. Pure.
"""

import json
from dataclasses import dataclass
from typing import Any

_ROLES = {
    "user": ("user", "human", "prompter", "用户"),
    "assistant": ("assistant", "gpt", "chatglm", "bot", "model", "chatbot", "助手"),
    "system": ("system", "系统"),
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}
# Some write question and answer of one turn into one object.
_PAIRS = (("human", "assistant"), ("user", "assistant"), ("input", "output"), ("question", "answer"))
_WHO, _WHAT = ("role", "from", "speaker"), ("content", "value", "text")


@dataclass(frozen=True)
class Conversation:
    """`history` are the pairs of question and answer before the last one; `target` is empty where the last question has
    no answer."""

    instruction: str
    target: str
    history: tuple[tuple[str, str], ...]
    system: str


class NoConversation(Exception):
    """Why turns are no conversation: the code of a reject and its params."""

    def __init__(self, code: str, **params: object) -> None:
        super().__init__(code)
        self.code, self.params = code, params


def turns_of(value: Any) -> list[Any] | None:
    """The turns of a value that is a list of them, or of pairs, or JSON of one; None for anything else."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if are_turns(value):
        return value
    if not isinstance(value, list) or not value or not all(isinstance(pair, dict) for pair in value):
        return None
    names = next((pair for pair in _PAIRS if pair[0] in value[0] and pair[1] in value[0]), None)
    return [turn for pair in value for turn in _turns(pair, names)] if names else None


def are_turns(value: Any) -> bool:
    """Whether it is a list of objects that say who says what."""
    is_list = isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value)
    return bool(is_list) and bool(_named(value[0], _WHO))


def _turns(pair: dict[str, Any], names: tuple[str, str]) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": pair["system"]}] if pair.get("system") else []
    said = [{"role": role, "content": pair.get(name)} for role, name in zip(("user", "assistant"), names, strict=True)]
    return system + said


def conversation_of(turns: list[Any]) -> Conversation:
    """Raises NoConversation `turns-tools` for one that calls tools, `turns-order` where question and answer do not take
    turns, `turns-no-text` for a turn without text."""
    system: list[str] = []
    said: list[str] = []
    for number, turn in enumerate(turns, start=1):
        role = _ROLE_OF.get(str(turn.get(_named(turn, _WHO), "")).strip().lower())
        if role is None or turn.get("tool_calls") or turn.get("function_call"):
            raise NoConversation("turns-tools", turn=number, role=str(turn.get(_named(turn, _WHO), "")))
        text = _text(turn.get(_named(turn, _WHAT)))
        if text is None:
            raise NoConversation("turns-no-text", turn=number)
        if role == "system" and not said:
            system.append(text)
        elif role == ("assistant" if len(said) % 2 else "user"):
            said.append(text)
        else:
            raise NoConversation("turns-order", turn=number)
    if not said:
        raise NoConversation("turns-order", turn=len(turns))
    if len(said) % 2:
        said.append("")
    pairs = list(zip(said[::2], said[1::2], strict=True))
    return Conversation(*pairs[-1], tuple(pairs[:-1]), "\n".join(system))


def _named(turn: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if name in turn), "")


def _text(content: Any) -> str | None:
    """The text of a turn; None for pictures and the like."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        return "\n".join(parts) if all(isinstance(part, str) for part in parts) else None
    return None
