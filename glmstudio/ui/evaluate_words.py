"""What the Evaluate tab says, as HTML: how far an evaluation is, its scores, its rows, one row. Pure and escaped."""

import time
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from glmstudio.inference.difference import difference
from glmstudio.ui.adapter_choice import DIGEST_SHOWN
from glmstudio.ui.answers import marked
from glmstudio.ui.header import DTYPES
from glmstudio.ui.job_words import bar_html, ended_html, left_text
from glmstudio.ui.language import t
from glmstudio.ui.models_words import base_name

if TYPE_CHECKING:
    from glmstudio.evaluation.scoreboard import Scoreboard
    from glmstudio.studio.jobs import BackgroundJob

# (share, rows that have part in it): a line is shown where there are such rows; older scoreboards lack some.
METRICS = (
    ("json_valid", "json_rows"),
    ("format_match", "json_rows"),
    ("triple_precision", "triple_rows"),
    ("triple_recall", "triple_rows"),
    ("triple_f1", "triple_rows"),
    ("label_accuracy", "label_rows"),
    ("json_accuracy", "value_rows"),
    ("exact_match", "rows"),
    ("accuracy", "rows"),
)
FILTERS = ("all", "wrong", "better", "worse")
SHOWN_ROWS = 300
# Characters of a text that make a line of the list.
_READ = 1_000


def progress_html(now: "BackgroundJob | None", lang: str) -> str:
    """How far the evaluation is, or why it failed."""
    if now is None:
        return ""
    if not now.running:
        return ended_html(now, lang)
    counted = t("evaluate.progress", lang, done=f"{now.done:,}", total=f"{now.total:,}")
    counted = t("compare.base-loading", lang) if now.stage == "load" else counted
    return bar_html(now.done, now.total, counted, left_text(now.seconds_left, lang))


def scores_html(board: "Scoreboard | None", lang: str, *, has_runs: bool, running: bool = False) -> str:
    """Base beside tuned, a line a metric, with the rows that it counts; without a scoreboard what to do first, or that
    the first one is being made."""
    if board is None:
        key = "evaluate.first" if running else "evaluate.empty" if has_runs else "evaluate.no-run"
        return f'<p class="empty-hint">{t(key, lang)}</p>'
    base, tuned = board.scores["base"], board.scores["tuned"]
    lines = [_line(name, rows, base, tuned, lang) for name, rows in METRICS if tuned.get(rows) and name in tuned]
    lines += [_reasons(base, tuned, lang)]
    columns = "".join(f"<th>{t(f'evaluate.column.{name}', lang)}</th>" for name in ("metric", "base", "tuned", "rows"))
    done, total = (f"{count:,}" for count in board.counted)
    stopped = f'<p class="glm-warn">{t("evaluate.stopped", lang, done=done, total=total)}</p>' if board.partial else ""
    table = f"<table><thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'{table}{stopped}{_cut(board, lang)}<p class="glm-how">{escape(_how(board, lang))}</p>'


def _cut(board: "Scoreboard", lang: str) -> str:
    """How many answers reached the limit: as they are they count as wrong."""
    rows = board.scores["rows"]
    counts = {name: sum(name in row.get("cut", ()) for row in rows) for name in ("base", "tuned")}
    if not any(counts.values()):
        return ""
    told = t("evaluate.cut", lang, limit=board.settings.get("max_new_tokens", "–"), rows=f"{len(rows):,}", **counts)
    return f'<p class="glm-warn">{told}</p>'


def _how(board: "Scoreboard", lang: str) -> str:
    """Which content of the checkpoint answered, on which base, with which settings."""
    if not board.digest:
        return t("evaluate.how-unknown", lang)
    base = board.scores["answered_by"]["base"]
    return t(
        "evaluate.how", lang, step=f"{board.step:,}", digest=board.digest[:DIGEST_SHOWN],
        temperature=board.settings.get("temperature", "–"), tokens=board.settings.get("max_new_tokens", "–"),
        base=f"{base_name(base.get('source', ''), lang)} {DTYPES.get(base.get('dtype'), '')}".strip(),
    )  # fmt: skip


def _line(name: str, rows: str, base: dict[str, Any], tuned: dict[str, Any], lang: str) -> str:
    change = (tuned[name] or 0) - (base[name] or 0)
    kind = "ok" if change > 0 else "bad" if change < 0 else ""
    return (
        f"<tr><td>{t(f'metric.{name}', lang)}</td><td>{_share(base[name])}</td>"
        f'<td class="{kind}"><b>{_share(tuned[name])}</b></td><td>{tuned[rows]:,}</td></tr>'
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _right(totals: dict[str, Any]) -> str:
    return _share(totals["right"] / totals["rows"] if totals["rows"] and "right" in totals else None)


def _reasons(base: dict[str, Any], tuned: dict[str, Any], lang: str) -> str:
    cells = "".join(f"<td>{totals['finish_reasons'].get('stop', 0):,}</td>" for totals in (base, tuned))
    return f"<tr><td>{t('metric.ended', lang)}</td>{cells}<td>{tuned['rows']:,}</td></tr>"


def boards_html(boards: "Sequence[Scoreboard]", chosen: "Scoreboard | None", names: dict[str, str], lang: str) -> str:
    """The scoreboards there are, those that were stopped early folded away; a click shows one. `names` are the runs'
    names by id."""
    whole = [board for board in boards if not board.partial]
    partial = [board for board in boards if board.partial]
    html = _boards(whole, chosen, names, lang)
    if partial:
        opened = " open" if chosen in partial else ""
        summary = t("evaluate.partial", lang, count=f"{len(partial):,}")
        html += f"<details{opened}><summary>{summary}</summary>{_boards(partial, chosen, names, lang)}</details>"
    return html


def _boards(boards: "Sequence[Scoreboard]", chosen: "Scoreboard | None", names: dict[str, str], lang: str) -> str:
    if not boards:
        return ""
    rows = "".join(_board(board, chosen, names, lang) for board in boards)
    columns = ("run", "checkpoint", "data", "rows", "settings", "right", "time")
    header = "".join(f"<th>{t(f'evaluate.column.{name}', lang)}</th>" for name in columns)
    return f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>"


def _board(board: "Scoreboard", chosen: "Scoreboard | None", names: dict[str, str], lang: str) -> str:
    done, total = (f"{count:,}" for count in board.counted)
    counted = t("evaluate.counted", lang, done=done, total=total) if board.partial else total
    # Scores on other rows are other scores.
    if chosen is not None and board.dataset == chosen.dataset and board.snapshot_id != chosen.snapshot_id:
        counted = f'<span class="glm-warn" title="{t("evaluate.other-rows", lang)}">{counted} ≠</span>'
    settings = board.settings
    how = (
        t("evaluate.settings", lang, temperature=settings["temperature"], tokens=settings["max_new_tokens"])
        if (settings.keys() >= {"temperature", "max_new_tokens"})
        else "–"
    )
    name, _, number = board.checkpoint.partition("-")
    step = board.step or (int(number) if number.isdecimal() else 0)
    version = t(f"compare.checkpoint.{name}", lang, step=f"{step:,}" if step else "–")
    cells = (
        f"<button>{escape(names.get(board.run_id, board.run_id))}</button>",
        f'<span title="{escape(board.digest)}">{escape(version)}</span>',
        escape(board.dataset),
        counted,
        escape(how),
        _right(board.scores["tuned"]),
        time.strftime("%m-%d %H:%M", time.localtime(board.created_at)),
    )
    mark = " class=chosen" if board is chosen else ""
    return f'<tr data-board="{escape(board.name)}"{mark}>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def rows_of(board: "Scoreboard", wanted: str) -> list[tuple[int, dict[str, Any], bool, bool]]:
    """(place, row, base right, tuned right) of the rows that one of `FILTERS` lets through."""
    found = []
    for place, (row, (base, tuned)) in enumerate(zip(board.scores["rows"], board.right, strict=True)):
        shown = {"all": True, "wrong": not tuned, "better": tuned and not base, "worse": base and not tuned}
        if shown[wanted]:
            found.append((place, row, base, tuned))
    return found


def rows_html(board: "Scoreboard | None", wanted: str, chosen: int, lang: str) -> str:
    """The rows with both verdicts; a click shows one whole."""
    if board is None:
        return f'<div class="glm-empty">{t("evaluate.rows-empty", lang)}</div>'
    rows = rows_of(board, wanted)
    if not rows:
        return f'<div class="glm-empty">{t("evaluate.no-rows", lang)}</div>'
    body = "".join(_row(*row, row[0] == chosen) for row in rows[:SHOWN_ROWS])
    more = len(rows) - SHOWN_ROWS
    rest = f'<p class="empty-hint">{t("evaluate.more", lang, count=f"{more:,}")}</p>' if more > 0 else ""
    columns = '<colgroup><col class="v"><col class="v"><col class="n"><col class="i"><col></colgroup>'
    names = ("base", "tuned", "row", "input", "answer")
    header = "".join(f"<th>{t(f'evaluate.column.{name}', lang)}</th>" for name in names)
    table = f"{columns}<thead><tr>{header}</tr></thead><tbody>{body}</tbody>"
    return f'<table class="glm-rows" tabindex="0">{table}</table>{rest}'


def _row(place: int, row: dict[str, Any], base: bool, tuned: bool, chosen: bool) -> str:
    marks = "".join(f'<td class="m {"ok" if right else "bad"}">{"✓" if right else "✗"}</td>' for right in (base, tuned))
    cut = " ✂" if "tuned" in row.get("cut", ()) else ""
    return (
        f'<tr data-place="{place}"{" aria-selected=true" if chosen else ""}>{marks}<td class="n">{place + 1}</td>'
        f'<td>{_start(row["input"] or row["instruction"])}</td><td class="t">{_start(row["tuned"])}{cut}</td></tr>'
    )


def _start(text: str, most: int = 90) -> str:
    line = " ".join(text[:_READ].split())
    return escape(line[:most] + ("…" if len(line) > most else ""))


def row_html(board: "Scoreboard | None", place: int, lang: str) -> str:
    """One row whole: prompt, target, both answers with what differs from the target marked."""
    if board is None or not 0 <= place < len(board.scores["rows"]):
        return f'<p class="empty-hint">{t("evaluate.pick-row", lang)}</p>' if board is not None else ""
    row = board.scores["rows"][place]
    parts = [("annotate.instruction", escape(row["instruction"])), ("annotate.input", escape(row["input"]))]
    parts = [(key, text) for key, text in parts if text] + [("annotate.target", escape(row["target"]))]
    for key, name in (("compare.base", "base"), ("compare.tuned-title", "tuned")):
        text = marked(difference(row["target"], row[name])[1]) or escape(t("compare.empty-answer", lang))
        if name in row.get("cut", ()):
            text += f'<p class="glm-warn">{t("compare.ended.length", lang)}</p>'
        parts.append((key, text))
    return "<dl>" + "".join(f"<dt>{t(key, lang)}</dt><dd>{text}</dd>" for key, text in parts) + "</dl>"
