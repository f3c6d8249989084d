"""From the named values of one line to an example, and from an example to its prompt text. Pure: knows no file.

A context that `join_context` cannot have written is kept whole in `input`, tagged `raw-context`, so that it goes out as
it came in.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from glmstudio.data.example import SPLITS, STATUSES, Example, Reject, join_context, split_context
from glmstudio.data.quality import RAW_CONTEXT_TAG, is_storable

_NAMES = {
    "context": ("context", "上下文"),
    "instruction": ("instruction", "指令"),
    "input": ("input", "输入"),
    "target": ("target", "output", "response", "输出"),
}
_FIELD_OF = {name: field for field, names in _NAMES.items() for name in names}
# What an export keeps of a row beside its texts.
KEPT = {"split": SPLITS, "status": STATUSES}
_JSON_TYPES = {bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}


def field_of(name: str) -> str | None:
    """`context`, `instruction`, `input` or `target` for a column's name in any case; None for any other name."""
    return _FIELD_OF.get(name.strip().lower())


def context_of(example: Example) -> str:
    """The prompt text of an example as files hold it."""
    if RAW_CONTEXT_TAG in example.tags and not example.instruction:
        return example.input
    return join_context(example.instruction, example.input)


def example_of(
    line: int,
    columns: Iterable[tuple[str, Any]],
    *,
    dataset: str,
    split: str,
    prompt_field: str,
    ignored: Counter[str],
) -> Example | Reject:
    """The example of one line, a draft where the target is empty. A column `split` or `status` that says one of ours
    goes before the given split and that rule.

    `prompt_field` is what a line without prompt is said to lack; `ignored` counts, by column, the values that found no
    place. A reject's code is `field-missing`, `field-not-text`, `field-unstorable` or `prompt-empty`.
    """
    values: dict[str, str] = {}
    kept: dict[str, str] = {}
    for name, value in columns:
        field, own = field_of(name), name.strip().lower()
        if own in KEPT and own not in kept and isinstance(value, str) and value.strip().lower() in KEPT[own]:
            kept[own] = value.strip().lower()
        elif field is None or field in values:
            if value not in ("", None, [], {}):
                ignored[name] += 1
        elif value is None:
            continue
        elif not isinstance(value, str):
            return Reject(line, "field-not-text", {"field": name, "type": _JSON_TYPES[type(value)]})
        elif not is_storable(value):
            return Reject(line, "field-unstorable", {"field": name})
        else:
            values[field] = value
    if values.keys() <= {"target"}:
        return Reject(line, "field-missing", {"field": prompt_field})
    if "target" not in values:
        return Reject(line, "field-missing", {"field": "target"})
    instruction, input, tags = _prompt(values, ignored)
    if not instruction.strip() and not input.strip():
        return Reject(line, "prompt-empty")
    target = values["target"]
    status = "done" if target.strip() else "draft"
    place = {"split": split, "status": status} | kept
    return Example(instruction, input, target, dataset, source="import", tags=tags, **place)


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
