"""What Undo can take back in one browser: steps, newest last, each with the row as this browser last knew it. Pure."""

from dataclasses import dataclass, replace

from glmstudio.data.example import Example

_LENGTH = 100


@dataclass(frozen=True)
class Step:
    """`kind`: "added", "changed", "deleted" (in the store) or "left" (unsaved text that made way); `row` is the row as
    it was saved, deleted or left. A save is taken back only while the store holds the revision that `row` has."""

    kind: str
    row: Example


Trail = tuple[Step, ...]


def with_step(trail: Trail, kind: str, row: Example) -> Trail:
    return (*trail, Step(kind, row))[-_LENGTH:]


def with_revision(trail: Trail, row: Example) -> Trail:
    """Taking a save back makes a new revision; the earlier saves of that row go on from there."""
    return tuple(
        replace(step, row=replace(step.row, revision=row.revision))
        if step.kind in ("added", "changed") and step.row.id == row.id
        else step
        for step in trail
    )


def is_unsaved(texts: list[str | None], editing: Example | None) -> bool:
    """Whether (instruction, input, target) would be lost with the form. A new row's instruction alone is not worth
    keeping."""
    instruction, input, target = (text or "" for text in texts)
    if editing is None:
        return bool(input.strip() or target.strip())
    return (instruction, input, target) != (editing.instruction, editing.input, editing.target)
