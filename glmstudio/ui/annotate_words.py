"""What the form says about its row: new or which revision, saved when and by whom, what a colleague wrote. Pure."""

from datetime import datetime
from html import escape

from glmstudio.data.example import Example
from glmstudio.ui.language import t


def local_time(stamp: str) -> str:
    """An ISO 8601 time of the store as "10:42", or with its day when that is not today."""
    moment = datetime.fromisoformat(stamp).astimezone()
    today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M" if today else "%Y-%m-%d %H:%M")


def saved_html(row: Example, language: str) -> str:
    """ "saved 10:42 by li"."""
    key = "annotate.saved-by" if row.annotator else "annotate.saved"
    text = t(key, language, id=row.id, time=local_time(row.updated_at), name=row.annotator)
    return f'<span class="glm-ok">✓</span> {escape(text)}'


def heading_html(row: Example | None, language: str) -> str:
    """Which row the form holds: new, or its number, revision and last save."""
    if row is None:
        return f"<b>{t('annotate.new-row', language)}</b>"
    title = t("annotate.row", language, id=row.id)
    key = "annotate.revision-by" if row.annotator else "annotate.revision"
    detail = t(key, language, revision=row.revision, time=local_time(row.updated_at), name=row.annotator)
    return f'<b data-row="{row.id}">{title}</b><small>{escape(detail)}</small>'


def conflict_html(mine: Example, theirs: Example, language: str) -> str:
    """What the colleague saved meanwhile, field by field where it differs from mine."""
    name = theirs.annotator or t("annotate.somebody", language)
    title = t(
        "annotate.conflict", language, name=name, time=local_time(theirs.updated_at), id=theirs.id,
        revision=theirs.revision,
    )  # fmt: skip
    lines = [
        f"<dt>{t(f'annotate.{field}', language)}</dt><dd>{escape(getattr(theirs, field))}</dd>"
        for field in ("instruction", "input", "target")
        if getattr(theirs, field) != getattr(mine, field)
    ]
    same = f"<p>{t('annotate.conflict-same', language)}</p>"
    return f"<b>⚠ {escape(title)}</b>" + (f"<dl>{''.join(lines)}</dl>" if lines else same)
