"""The line above the tabs: which base is resident and its state, the run that trains, jobs under way, language and
colours. Knows no tab."""

from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING

import gradio as gr

from glmstudio import quantities
from glmstudio.ui.job_words import left_text
from glmstudio.ui.language import error_text, in_numbers, t
from glmstudio.ui.page import QUEUED, look_after

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glmstudio.studio import Studio
    from glmstudio.studio.base_slot import BaseStatus
    from glmstudio.studio.jobs import BackgroundJob
    from glmstudio.studio.look import Look
    from glmstudio.training.runs import Run
    from glmstudio.training.train import Progress
    from glmstudio.ui.live import Asked, Live
    from glmstudio.ui.page import Page

_MARKS = {"downloading": "◌", "loading": "◌", "ready": "●", "failed": "✕", "released": "○"}
DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def place(live: "Live") -> gr.HTML:
    """The header, where the layout wants it."""
    return live.slot("header", "", draw)


def wire(studio: "Studio", page: "Page") -> None:
    """Tells the tabs when another base has come, and lets the header stop a job."""
    page.on_wake("", lambda look, _: base_mark(look), lambda: base_mark(studio.look()), [], [page.base_state])

    def on_stop(event: gr.EventData) -> None:
        studio.stop_job(event.job)

    stopper = gr.HTML("", visible="hidden", js_on_load="glm.onStop((job) => trigger('end', { job }));")
    look_after(stopper.end(on_stop, None, None, **QUEUED))


def base_mark(look: "Look") -> str:
    """The state of the base and which one it is."""
    return f"{look.base.state} {look.base.source}"


def draw(look: "Look", asked: "Asked") -> str:
    active = look.active
    training = Training(active, look.progress_of(active), len(look.queue.waiting)) if active is not None else None
    jobs = [job for job in look.jobs if job.running]
    return header_html(look.base, training, asked.language, jobs)


@dataclass(frozen=True)
class Training:
    """The run that trains now, how far it is (None until its first step) and how many wait."""

    run: "Run"
    progress: "Progress | None"
    waiting: int = 0


def header_html(
    status: "BaseStatus",
    training: Training | None,
    language: str,
    jobs: "Sequence[BackgroundJob]" = (),
) -> str:
    """The header's inside. `page.js` gives its buttons their meaning by their data attributes."""
    return (
        f'<span class="glm-brand">GLM Studio</span>{_base(status, language)}'
        f"{_run(training, language) if training else ''}{''.join(_job(job, language) for job in jobs)}"
        f"{_switches(language)}"
    )


def _base(status: "BaseStatus", language: str) -> str:
    name = t("header.demonstration", language) if status.demonstration else PurePath(status.source).name
    reason = error_text(status.error, language) if status.error is not None else ""
    if status.state == "released":
        reason = t("models.released", language, name=name)
    got = status.download
    share = f"{100 * got.done / got.total:.0f}" if got is not None and got.total else "0"
    state = t(f"header.{status.state}", language, reason=reason, share=share)
    facts = []
    if status.state == "ready":
        dtype = DTYPES.get(status.dtype, status.dtype)
        kind = [] if status.quantization == "none" else [status.quantization]
        numbers = in_numbers(status.dtype, status.dtype_reason, language)
        facts = [
            (" · ".join([f"{status.device.upper()} {dtype}", *kind]), numbers),
            (quantities.size(status.memory_bytes), ""),
        ]
    hint = t("header.demonstration-hint", language) if status.demonstration else status.source
    return (
        f'<span class="glm-base" title="{escape(hint)}">{t("header.base", language)} <b>{escape(name)}</b></span>'
        f'<span class="glm-state glm-{status.state}" title="{escape(reason)}">{_MARKS[status.state]} '
        f"{escape(state)}</span>"
        + "".join(f'<span class="glm-fact" title="{escape(hint)}">{escape(fact)}</span>' for fact, hint in facts)
    )


def _run(training: Training, language: str) -> str:
    run, progress = training.run, training.progress
    step, total = (progress.step, progress.total) if progress is not None else (run.step, run.total)
    share = 100 * step / total if total else 0
    left = ""
    if run.status == "paused":
        left = t("status.paused", language)
    elif progress is not None:
        left = left_text(progress.seconds_left, language)
    waiting = f" · {t('header.waiting', language, count=training.waiting)}" if training.waiting else ""
    return (
        f'<button class="glm-run" data-open-tab="train" title="{escape(t("header.open-train", language))}">'
        f"{t('header.run', language, number=run.number, step=step, total=total)}"
        f'<span class="glm-bar"><span style="width:{share:.1f}%"></span></span>{left}{waiting}</button>'
    )


def _job(job: "BackgroundJob", language: str) -> str:
    """Work beside the page: how far it is, and the cross that stops it."""
    share = 100 * job.done / job.total if job.total else 0
    left = left_text(job.seconds_left, language)
    hint, subject = escape(t("header.stop-job", language)), escape(" · ".join(filter(None, job.subject.values())))
    return (
        f'<span class="glm-job" title="{subject}">{t(f"header.job.{job.kind}", language)}'
        f'<span class="glm-bar"><span style="width:{share:.1f}%"></span></span> {left}'
        f'<button data-stop-job="{escape(job.id)}" aria-label="{hint}" title="{hint}">×</button></span>'
    )


def _switches(language: str) -> str:
    languages = "".join(
        f'<button data-language="{name}" aria-pressed="{str(name == language).lower()}">{word}</button>'
        for name, word in (("zh", "中文"), ("en", "EN"))
    )
    hint = escape(t("header.colours", language))
    return (
        f'<span class="glm-switches"><span class="glm-languages">{languages}</span>'
        f'<button data-colours aria-label="{hint}" title="{hint}"></button></span>'
    )
