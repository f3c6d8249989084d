"""What the Train tab says, as HTML: how a run stands, the list of runs, what the check found. Pure and escaped."""

import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from glmstudio import quantities
from glmstudio.errors import StudioError
from glmstudio.quantities import clock
from glmstudio.training.runs import LIVE
from glmstudio.ui.language import error_text, field_text, finding_text, t

if TYPE_CHECKING:
    from glmstudio.data.quality import Finding
    from glmstudio.data.row_reader import DatasetSummary
    from glmstudio.studio.run_starts import Preparing
    from glmstudio.training.estimate import Estimate
    from glmstudio.training.metrics import MetricRecord
    from glmstudio.training.runs import Run
    from glmstudio.training.train import Progress

_PARTS = ("weights", "process", "packed", "adapter", "activations", "logits", "cache")
_MARKS = {"error": "✗", "wait": "…", "warning": "⚠", "info": "✓"}


def status_html(
    run: "Run | None",
    progress: "Progress | None",
    latest: Mapping[str, "MetricRecord"],
    lang: str,
    *,
    pausing: bool = False,
) -> str:
    """Bar and numbers of one run. `progress` where this process trains it; `latest` is what its file says; `pausing`
    where it was asked to pause and may still train."""
    if run is None:
        return f'<p class="empty-hint">{t("train.no-run", lang)}</p>'
    train = latest.get("train")
    step = max(run.step, progress.step if progress else 0, train.step if train else 0)
    whole = run.status == "finished" and not run.stopped_early
    share = 100.0 if whole else 100 * step / run.total if run.total else 0.0
    facts = _going_facts(run, progress, latest, step, pausing, lang) if run.status in LIVE else _ended_facts(run, lang)
    if run.halved_from:
        facts.append(t("train.halved", lang, before=f"{run.halved_from:,}", after=f"{run.token_budget:,}"))
    if run.total:
        facts.insert(0, t("train.step", lang, step=f"{step:,}", total=f"{run.total:,}"))
    spans = "".join(f'<span class="fact">{escape(fact)}</span>' for fact in facts)
    reason = f'<p class="reason">{escape(_failure(run, lang))}</p>' if run.error else ""
    return (
        f'<div class="run-status run-{run.status}"><div class="bar"><i style="width:{share:.1f}%"></i></div>'
        f"<p><b>{escape(run_name(run, lang))} · {_status(run, lang)}</b>{spans}</p>{reason}</div>"
    )


def preparing_html(preparing: "Preparing", lang: str) -> str:
    """Bar and stage of a run that is made ready."""
    share = 100 * preparing.done / preparing.total if preparing.total else 0.0
    stage = t(f"train.stage.{preparing.stage}", lang, done=f"{preparing.done:,}", total=f"{preparing.total:,}")
    facts = "".join(f'<span class="fact">{escape(fact)}</span>' for fact in (preparing.dataset, stage))
    return (
        f'<div class="run-status run-preparing"><div class="bar"><i style="width:{share:.1f}%"></i></div>'
        f"<p><b>{t('train.preparing', lang)}</b>{facts}</p></div>"
    )


def _status(run: "Run", lang: str) -> str:
    return t(f"status.{'stopped-early' if run.stopped_early else run.status}", lang)


def _going_facts(
    run: "Run", progress: "Progress | None", latest: Mapping[str, "MetricRecord"], step: int, pausing: bool, lang: str
) -> list[str]:
    values = latest["train"].values if "train" in latest else {}
    speed = progress.steps_per_second if progress else values.get("steps_per_second")
    tokens = progress.tokens_per_second if progress else values.get("tokens_per_second")
    memory = progress.memory_bytes if progress else latest["system"].values["memory_bytes"] if "system" in latest else 0
    left = progress.seconds_left if progress else None
    if left is None and speed:
        left = (run.total - step) / speed
    if run.status == "paused":
        return _paused_facts(left, step, lang)
    phase = "pausing" if pausing else progress.phase if progress else "training"
    facts = [t(f"train.phase.{phase}", lang)] if phase != "training" and run.status == "running" else []
    facts += [t("train.speed", lang, steps=quantities.rate(speed))] if speed else []
    facts += [t("train.token-speed", lang, tokens=quantities.rate(tokens))] if tokens else []
    facts += [t("train.left", lang, time=clock(left))] if left is not None and run.status == "running" else []
    return facts + ([quantities.size(memory)] if memory else [])


def _paused_facts(left: float | None, step: int, lang: str) -> list[str]:
    facts = [t("train.left", lang, time=clock(left))] if left is not None else []
    return facts + ([t("train.kept", lang, step=f"{step:,}")] if step else [])


def _ended_facts(run: "Run", lang: str) -> list[str]:
    facts = []
    if run.seconds:
        facts.append(t("train.took", lang, time=clock(run.seconds)))
    if run.best_eval_loss is not None:
        facts.append(t("train.best", lang, loss=f"{run.best_eval_loss:.3f}", step=f"{run.best_step:,}"))
    return facts


def _failure(run: "Run", lang: str) -> str:
    """Why the run failed. A folder may be older than today's sentences: then its bare code and details."""
    code, params = run.error["code"], run.error["params"]
    try:
        return error_text(StudioError(code, **params), lang)
    except KeyError:
        return " · ".join([code, *(f"{name}: {value}" for name, value in params.items())])


def run_name(run: "Run", lang: str) -> str:
    """ "run 3"; the folder's name for a run that the command line put elsewhere."""
    return t("train.run", lang, number=run.number) if run.number else run.id


def in_order(runs: Sequence["Run"], waiting: Sequence[str]) -> list["Run"]:
    """As the list shows them: what trains, what waits with the next one first, then the rest, the newest first."""
    known = {run.id: run for run in runs}
    queued = [known[run_id] for run_id in waiting if run_id in known]
    live = [run for run in runs if run.status in LIVE and run.id not in waiting]
    return live + queued + [run for run in runs if run.status not in LIVE]


def runs_html(
    runs: Sequence["Run"], chosen: str, overlaid: Sequence[str], lang: str, waiting: Sequence[str] = ()
) -> str:
    """The list of runs: a click on a row shows its curve, a box lays it over the shown one; `waiting` ones have their
    place in the queue, arrows that change it and a cross that takes them out."""
    if not runs:
        return ""
    columns = ("overlay", "run", "status", "data", "steps", "best", "created")
    header = "".join(f"<th>{t(f'train.column.{name}', lang)}</th>" for name in columns)
    orders = {run_id: _order(place, len(waiting), lang) for place, run_id in enumerate(waiting)}
    rows = "".join(_run_row(run, run.id == chosen, run.id in overlaid, lang, orders.get(run.id, "")) for run in runs)
    return f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>"


def _order(place: int, count: int, lang: str) -> str:
    """The place of a waiting run, and the buttons that change it."""

    def button(order: str, sign: str, off: bool, more: str = "") -> str:
        hint = escape(t(f"train.queue.{order}", lang))
        state = " disabled" if off else ""
        return f'<button data-order="{order}" aria-label="{hint}" title="{hint}"{more}{state}>{sign}</button>'

    question = f' data-question="{escape(t("train.queue.question", lang))}"'
    return (
        f'<span class="run-order"><b>{place + 1}</b>{button("up", "↑", place == 0)}'
        f"{button('down', '↓', place == count - 1)}{button('remove', '×', False, question)}</span>"
    )


def _run_row(run: "Run", chosen: bool, overlaid: bool, lang: str, order: str) -> str:
    best = f"{run.best_eval_loss:.3f} @ {run.best_step:,}" if run.best_eval_loss is not None else "–"
    box = (
        f'<input type="checkbox" aria-label="{t("train.column.overlay", lang)}"'
        f"{' checked' if overlaid or chosen else ''}{' disabled' if chosen else ''}>"
    )
    cells = (
        f'<button class="run-pick">{escape(run_name(run, lang))}</button>',
        f'<span class="run-{run.status}">{_status(run, lang)}</span>{order}',
        escape(run.dataset),
        f"{run.step:,} / {run.total:,}" if run.total else "–",
        best,
        time.strftime("%m-%d %H:%M", time.localtime(run.created_at)),
    )
    marked = ' class="chosen"' if chosen else ""
    return f'<tr data-run="{escape(run.id)}"{marked}><td>{box}</td>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def facts_html(summary: "DatasetSummary | None", plan: Mapping[str, object], lang: str) -> str:
    """How many rows the chosen dataset has; from the check's plan how many steps they make and the longest row."""
    if summary is None:
        return ""
    facts = [t("train.counts", lang, train=f"{summary.train:,}", dev=f"{summary.dev:,}")]
    facts += [t(f"train.{name}", lang, number=f"{plan[name]:,}") for name in ("steps", "longest") if name in plan]
    return f"<p>{' · '.join(facts)}</p>"


def needs_html(
    memory_bytes: int,
    seconds: float | None,
    like: "Run | None",
    lang: str,
    estimate: "Estimate | None" = None,
    *,
    measuring: bool = False,
    numbers: str = "",
) -> str:
    """What the run takes in memory and time, its parts in a tooltip. Until that is estimated: what is held now, and
    how long the run takes at the speed of an earlier one."""
    if estimate is not None:
        parts = ((part, getattr(estimate, part)) for part in _PARTS)
        hint = " · ".join(t(f"train.part.{part}", lang, memory=quantities.size(size)) for part, size in parts if size)
        sizes = {"need": quantities.size(estimate.total), "room": quantities.size(estimate.room)}
        facts = [t("train.estimate", lang, **sizes)]
        if estimate.seconds is None:
            facts.append(t("train.unmeasured", lang))
        else:
            facts.append(t("train.estimate-time", lang, time=clock(estimate.seconds)))
        facts += [numbers] if numbers else []
        facts += [t("train.budget", lang, tokens=f"{estimate.token_budget:,}")] if estimate.token_budget else []
        facts += [t("train.checkpointing", lang)] if estimate.gradient_checkpointing else []
        return f'<p title="{escape(hint)}">{escape(" · ".join(facts))}</p>'
    facts = [t("train.memory", lang, memory=quantities.size(memory_bytes))] if memory_bytes else []
    if seconds is not None and like is not None:
        facts.append(t("train.about", lang, time=clock(seconds), run=run_name(like, lang)))
    facts += [t("train.measuring", lang)] if measuring else []
    return f"<p>{escape(' · '.join(facts))}</p>"


def check_html(
    has_data: bool,
    problems: Sequence[StudioError],
    findings: Sequence["Finding"],
    active: "Run | None",
    lang: str,
    held: int = 0,
) -> str:
    """Everything that stands in the way of a start (✗), is waited for (…), worth knowing (⚠) or well (✓), worst first.
    `held` runs wait for a person to start the queue."""
    lines = [] if has_data else [("error", t("train.no-data", lang))]
    lines += [("error", field_text(problem, lang)) for problem in problems]
    lines += [("info", t("train.held", lang, count=held))] if held else []
    lines += [
        ("wait" if found.code == "rows-counted" else found.severity, finding_text(found, lang))
        for found in findings
        if found.code != "plan"
    ]
    if active is not None:
        state = "busy-paused" if active.status == "paused" else "busy"
        lines.append(("info", t(f"train.{state}", lang, run=run_name(active, lang))))
        if active.settings.num_processes > 1:
            lines.append(("info", t("train.no-pause", lang)))
    elif not any(severity in ("error", "wait") for severity, _ in lines):
        lines.append(("info", t("train.ready", lang)))
    lines.sort(key=lambda line: list(_MARKS).index(line[0]))
    return "".join(
        f'<p class="check-{severity}"><b>{_MARKS[severity]}</b> {escape(text)}</p>' for severity, text in lines
    )
