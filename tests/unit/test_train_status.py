"""What the Train tab says about runs and checks: in words of the language, escaped, worst first."""

from dataclasses import replace

import pytest

from glmstudio.data.quality import Finding
from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.studio.run_starts import Preparing
from glmstudio.training.callbacks import Progress
from glmstudio.training.estimate import Estimate
from glmstudio.training.metrics import MetricRecord
from glmstudio.training.runs import BaseFacts, Run
from glmstudio.ui import train_status
from glmstudio.ui.language import LANGUAGES, t

RUN = Run(
    id="run-0003", number=3, dataset="<demo>", snapshot_id="abc", base=BaseFacts("tiny", "chatglm", "fp32", "cpu"),
    lora=LoraSettings(), settings=TrainingSettings(), status="running", step=120, total=400, created_at=1.0,
    started_at=10.0,
)  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "status", ["queued", "running", "paused", "stopping", "finished", "stopped", "failed", "interrupted"]
)
def test_every_status_has_its_word_in_status_and_list(status, language):
    run = replace(RUN, status=status)
    word = t(f"status.{status}", language)
    assert word in train_status.status_html(run, None, {}, language)
    assert word in train_status.runs_html([run], "", (), language)


def test_a_run_of_this_process_shows_its_progress():
    progress = Progress(121, 400, steps_per_second=5.1, tokens_per_second=3900.0, seconds_left=70.0, memory_bytes=2**30)
    shown = train_status.status_html(RUN, progress, {}, "en")
    for fact in ("run 3", "step 121 / 400", "5.1 steps/s", "3,900 tokens/s", "01:10 left", "1.00 GB", "width:30.2%"):
        assert fact in shown
    assert "evaluating" in train_status.status_html(RUN, replace(progress, phase="evaluating"), {}, "en")


def test_a_pause_is_announced_and_says_what_is_kept():
    progress = Progress(121, 400, steps_per_second=5.1, tokens_per_second=3900.0, seconds_left=70.0, phase="training")
    assert "pausing…" in train_status.status_html(RUN, progress, {}, "en", pausing=True)
    shown = train_status.status_html(replace(RUN, status="paused"), progress, {}, "en", pausing=True)
    for fact in ("run 3 · paused", "step 121 / 400", "01:10 left", "kept up to step 121"):
        assert fact in shown
    for fact in ("steps/s", "pausing…"):
        assert fact not in shown


def test_a_run_of_another_process_shows_what_its_file_says():
    values = {"loss": 1.0, "steps_per_second": 2.0, "tokens_per_second": 800.0}
    latest = {
        "train": MetricRecord("train", 200, 4.0, 0.0, values),
        "system": MetricRecord("system", 200, 4.0, 0.0, {"memory_bytes": 2**31}),
    }
    shown = train_status.status_html(RUN, None, latest, "en")
    for fact in ("step 200 / 400", "2 steps/s", "800 tokens/s", "01:40 left", "2.00 GB"):
        assert fact in shown


def test_a_finished_run_shows_its_best():
    run = replace(RUN, status="finished", finished_at=110.0, step=400, best_step=300, best_eval_loss=0.2104)
    shown = train_status.status_html(run, None, {}, "zh")
    for fact in ("完成", "用时 01:40", "最佳验证损失 0.210（第 300 步）", "width:100.0%"):
        assert fact in shown


def test_the_steps_of_a_run_are_a_dash_until_they_are_known():
    waiting = replace(RUN, status="queued", step=0)
    assert "<td>0 / 400</td>" in train_status.runs_html([waiting], "", (), "en")
    assert "<td>–</td><td>–</td>" in train_status.runs_html([replace(waiting, total=0)], "", (), "en")


def test_no_name_becomes_markup():
    run = replace(RUN, number=0, id="<img>")
    assert "<img>" not in train_status.status_html(run, None, {}, "en")
    listed = train_status.runs_html([run], "", (), "en")
    assert "<img>" not in listed
    assert "&lt;demo&gt;" in listed


def test_the_check_says_the_worst_first_and_names_fields_by_their_labels():
    problems = [StudioError("setting-empty", field="r")]
    findings = [
        Finding("no-dev", "warning"),
        Finding("setting-bounds", "error", params={"field": "learning_rate", "value": 5.0, "low": 1e-7, "high": 1.0}),
        Finding("plan", "info", 400, params={"dev": 80, "steps": 50}),
    ]
    lines = train_status.check_html(True, problems, findings, None, "en").split("</p>")
    assert "LoRA rank" in lines[0]
    assert "Learning rate is 5.0" in lines[1]
    assert "check-warning" in lines[2]
    assert "Ready" not in "".join(lines)


def test_the_check_is_ready_only_with_data_and_no_active_run():
    assert t("train.ready", "en") in train_status.check_html(True, [], [], None, "en")
    assert "wait since the program was restarted (2)" in train_status.check_html(True, [], [], None, "en", held=2)
    assert t("train.no-data", "en") in train_status.check_html(False, [], [], None, "en")
    look = Finding("rows-counted", "error", params={"percent": 34})
    assert "34 %" in (looking := train_status.check_html(True, [], [look], None, "en"))
    assert (">…<" in looking, "✗" in looking, t("train.ready", "en") in looking) == (True, False, False)
    assert "run 3 is training" in train_status.check_html(True, [], [], RUN, "en")
    assert "run 3 is paused" in train_status.check_html(True, [], [], replace(RUN, status="paused"), "en")
    several = replace(RUN, settings=TrainingSettings(num_processes=2))
    assert "cannot pause" in train_status.check_html(True, [], [], several, "en")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_needs_of_a_run_are_one_line_with_its_parts_in_a_tooltip(language):
    estimate = Estimate(
        weights=2**30, process=2**29, packed=0, adapter=2**20, activations=2**29, logits=2**26, cache=2**26,
        room=22 * 2**30, seconds=100.0, token_budget=4096, gradient_checkpointing=True,
    )  # fmt: skip
    shown = train_status.needs_html(2**30, 5.0, RUN, language, estimate)
    for fact in ("2.13 GB", "22.0 GB", "01:40", "4,096", t("train.checkpointing", language)):
        assert fact in shown
    assert t("train.measuring", language) in train_status.needs_html(2**30, None, None, language, measuring=True)
    hint = shown.partition('title="')[2].partition('"')[0]
    assert t("train.part.weights", language, memory="1.00 GB") in hint
    assert t("train.part.packed", language, memory="") not in hint
    assert t("train.budget", language, tokens="0") not in train_status.needs_html(
        2**30, None, None, language, replace(estimate, token_budget=0)
    )


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_run_that_is_made_ready_shows_its_stage_and_how_many_rows_are_through(lang):
    for stage in ("loading", "freezing", "checking", "measuring"):
        assert "width:0.0%" in train_status.preparing_html(Preparing("<mine>", stage), lang)
    html = train_status.preparing_html(Preparing("<mine>", "rendering", 1500, 6000), lang)
    assert "width:25.0%" in html
    assert "1,500 / 6,000" in html
    assert "&lt;mine&gt;" in html
