"""From the named values of one row to an example, and from an example to its prompt text. Pure: knows no file.

A context that `join_context` cannot have written is kept whole in `input`, tagged `raw-context`, so that it goes out as
it came in.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any

from glmstudio.data.conversations import Conversation, NoConversation, conversation_of, turns_of
from glmstudio.data.example import STATUSES, Example, Reject, join_context, split_context, split_of_name
from glmstudio.data.labelled import TOOL_NAMES, cells_of
from glmstudio.data.quality import RAW_CONTEXT_TAG, is_storable
from glmstudio.data.reading.encodings import BROKEN
from glmstudio.data.reading.rows import RawRow

# The names of our own forms and of Alpaca's: several of one field are the same, and the first that is not empty counts.
_OWN = {
    "context": ("context", "上下文"),
    "instruction": ("instruction", "指令"),
    "input": ("input", "输入"),
    "target": ("target", "output", "response", "输出"),
    "turns": ("conversations", "messages", "conversation", "对话"),
    "split": ("split",),
    "status": ("status",),
}
# The names that other files have: each counts where its field has no name of its own in the file. Of two names for a
# prompt the first is the instruction and the second the input.
_ASKING = ("prompt", "提示词", "提示", "question", "问题", "提问", "问", "query", "q", "human")
_GIVEN = (
    "text", "文本", "原文", "content", "内容", "正文", "sentence", "句子", "article", "文章", "document", "passage",
)  # fmt: skip
_ANSWERING = (
    "answer", "answers", "答案", "回答", "答", "a", "assistant", "回复", "reply", "completion", "summary", "摘要",
    "参考答案", "标准答案", "ground_truth", "expected_output", "label", "labels", "标签", "标注", "标注结果",
    "结果", "result", "类别", "category", "目标",
)  # fmt: skip
_OWN_OF = {name: place for place, names in _OWN.items() for name in names}
# What a person may call a column.
FIELDS = ("instruction", "input", "target", "context", "split", "status")
# What an export keeps of a row beside its texts.
KEPT = {"split": split_of_name, "status": lambda word: word if word in STATUSES else ""}


def is_field(name: str) -> bool:
    """Whether a column's name is known, in any case."""
    name = name.strip().lower()
    return name in _OWN_OF or name in _ASKING or name in _GIVEN or name in _ANSWERING


def context_of(example: Example) -> str:
    """The prompt text of an example as files hold it."""
    if RAW_CONTEXT_TAG in example.tags and not example.instruction:
        return example.input
    return join_context(example.instruction, example.input)


class Columns:
    """What the names of a file mean; one for all its rows. `given` is the field of a column as a person has it, empty
    for one that is left out; no other column is that field then."""

    def __init__(self, given: Mapping[str, str] | None = None) -> None:
        self._given = dict(given or {})
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}

    @property
    def are_given(self) -> bool:
        """Whether a person has named any."""
        return bool(self._given)

    def knows(self, name: str) -> bool:
        """Whether that name makes an object a row, and a line the names of columns."""
        return name in self._given or is_field(name)

    def fields(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The field of each name, empty where it has none."""
        if (known := self._known.get(names)) is None:
            known = self._fields(names)
            # Rows whose names are data would fill the memory.
            if len(self._known) < 1000:
                self._known[names] = known
        return known

    def _fields(self, names: tuple[str, ...]) -> tuple[str, ...]:
        plain = [name.strip().lower() for name in names]
        fields = [self._given.get(name, self._given.get(name.strip())) for name in names]
        taken = {place for place in fields if place}
        for place, name in enumerate(plain):
            if fields[place] is None and (own := _OWN_OF.get(name)) and own not in taken:
                fields[place] = own
        taken |= {place for place in fields if place}
        if "role" in plain or "from" in plain:
            # The turns of one conversation, not rows.
            return tuple(field or "" for field in fields)
        prompts = [place for place in ("instruction", "input") if place not in taken and "turns" not in taken]
        if "context" in taken:
            prompts = [name for name in prompts if name == "instruction" and name not in taken]
        for name in _ASKING:
            if prompts and name in plain and fields[plain.index(name)] is None:
                fields[plain.index(name)] = prompts.pop(0)
        for name in _GIVEN:
            if prompts and name in plain and fields[plain.index(name)] is None:
                fields[plain.index(name)] = prompts.pop()
        if not taken & {"target", "turns"}:
            answers = [plain.index(name) for name in _ANSWERING if name in plain and fields[plain.index(name)] is None]
            for place in answers[:1]:
                fields[place] = "target"
        return tuple(field or "" for field in fields)


@dataclass
class RowMaker:
    """Makes the examples of one file. A column `split` or `status` that says one of ours goes before `split` and the
    rule that a row without target is a draft; `instruction` is that of rows which have none.

    `ignored` counts, by column, the values that found no place, `made_text` those that were no text and became it.
    """

    dataset: str
    split: str
    columns: Columns
    instruction: str = ""
    encoding: str = "UTF-8"
    ignored: Counter[str] = field(default_factory=Counter)
    made_text: Counter[str] = field(default_factory=Counter)

    def example(self, row: RawRow) -> Example | Reject:
        """A reject's code is `field-missing` where no name is that of a prompt, `prompt-empty`, `field-broken`,
        `field-nul`, `field-unstorable`, or one of `conversation_of`."""
        cells = list(row.cells)
        if not TOOL_NAMES.isdisjoint([name for name, _ in cells]) and not self.columns.are_given:
            cells = cells_of(cells)
        names = tuple([name for name, _ in cells])
        fields = self.columns.fields(names)
        values: dict[str, str] = {}
        kept: dict[str, str] = {}
        for place, (name, value) in zip(fields, cells, strict=True):
            if place in _TEXTS:
                if value.__class__ is not str and (value := self._text(name, value)) is None:
                    continue
                if values.get(place):
                    self._leave(name, value)
                elif problem := _problem(value):
                    return Reject(row.line, problem, {"field": name, "encoding": self.encoding}, row.row)
                else:
                    values[place] = value
            elif place == "turns" and (turns := turns_of(value)) is not None:
                try:
                    said = conversation_of(turns)
                except NoConversation as error:
                    return Reject(row.line, error.code, error.params, row.row)
                if problem := _problem(said.instruction) or _problem(said.target):
                    return Reject(row.line, problem, {"field": name, "encoding": self.encoding}, row.row)
                self._add_turns(said, values)
            elif place in KEPT and place not in kept and (word := KEPT[place](str(value).strip().lower())):
                kept[place] = word
            else:
                self._leave(name, value)
        instruction, input, tags = _prompt(values, self.ignored)
        if not instruction.strip():
            instruction = self.instruction or instruction
        if not input.strip() and not instruction.strip():
            if _PROMPTS.isdisjoint(fields):
                return Reject(row.line, "field-missing", {"field": "instruction", "found": found_names(names)}, row.row)
            return Reject(row.line, "prompt-empty", row=row.row)
        target = values.get("target", "")
        place = {"split": row.split or self.split, "status": "done" if target.strip() else "draft"} | kept
        return Example(instruction, input, target, self.dataset, source="import", tags=tags, **place)

    def _text(self, name: str, value: Any) -> str | None:
        """The text of a value that is none; None for one that is empty."""
        if value is None or value != value:
            return None
        self.made_text[name] += 1
        if isinstance(value, bool | int | float | list | dict):
            text = json.dumps(value, ensure_ascii=False, default=str)
            return json.dumps(_without_nan(value), ensure_ascii=False, default=str) if "NaN" in text else text
        if isinstance(value, datetime) and value.time() == time():
            value = value.date()
        return value.isoformat() if isinstance(value, date | time) else str(value)

    def _add_turns(self, said: Conversation, values: dict[str, str]) -> None:
        values.setdefault("instruction", said.instruction)
        values.setdefault("target", said.target)
        self._leave("history", said.history)
        self._leave("system", said.system)

    def _leave(self, name: str, value: Any) -> None:
        if value not in ("", None, [], {}, ()) and value == value:
            self.ignored[name] += 1


_TEXTS = frozenset(("context", "instruction", "input", "target"))
_PROMPTS = frozenset(("context", "instruction", "input", "turns"))
_MOST_NAMES = 20


def _without_nan(value: Any) -> Any:
    """The same JSON with null for NaN, which is none."""
    if isinstance(value, dict):
        return {name: _without_nan(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_without_nan(member) for member in value]
    return value if value == value else None


def found_names(names: Iterable[str]) -> str:
    """The names of a file for people."""
    names = list(names)
    return ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")


def _problem(text: str) -> str:
    """Why a text cannot be kept: the code of a reject."""
    if is_storable(text):
        return ""
    if BROKEN in text:
        return "field-broken"
    return "field-nul" if "\x00" in text else "field-unstorable"


def _prompt(values: dict[str, str], ignored: Counter[str]) -> tuple[str, str, tuple[str, ...]]:
    """(instruction, input, tags). Beside an instruction and without an input, a context is the input."""
    context, instruction, input = (values.get(name) for name in ("context", "instruction", "input"))
    if context is None:
        return instruction or "", input or "", ()
    if instruction is not None and input is None:
        return instruction, context, ()
    pair = split_context(context)
    prompt = pair or ("", context)
    for name, given, kept in zip(("instruction", "input"), (instruction, input), prompt, strict=True):
        if given and given != kept:
            ignored[name] += 1
    return *prompt, () if pair else (RAW_CONTEXT_TAG,)
