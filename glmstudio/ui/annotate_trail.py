"""What Undo can take back in one browser: steps, newest last, each with the row as this browser last knew it. Pure."""

from dataclasses import dataclass, replace

from glmstudio.data.example import Example

_LENGTH = 100


@dataclass(frozen=True)
class Step:
    """`kind`: "added", "changed", "deleted" (in the store) or "left" (unsaved text that made way); `row` is the row as
    it was saved, deleted or left. A save is taken back only while the store holds the revision that `row` has. `key` is
    the name of left text among those that the browser keeps."""

    kind: str
    row: Example
    key: str = ""


Trail = tuple[Step, ...]


def with_step(trail: Trail, kind: str, row: Example, key: str = "") -> Trail:
    return (*trail, Step(kind, row, key))[-_LENGTH:]


def with_revision(trail: Trail, row: Example) -> Trail:
    """Taking a save back makes a new revision; the earlier saves of that row go on from there."""
    return tuple(
        replace(step, row=replace(step.row, revision=row.revision))
        if step.kind in ("added", "changed") and step.row.id == row.id
        else step
        for step in trail
    )


def is_unsaved(row: Example, editing: Example | None) -> bool:
    """Whether what was typed would be lost with the form. A new row's instruction and place alone are not worth
    keeping."""
    if editing is None:
        return bool(row.input.strip() or row.target.strip())
    return row != editing
