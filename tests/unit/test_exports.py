"""Exports in the background: where they go, how they end, and what the page says of bases, downloads and exports."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from glmstudio.errors import StudioError
from glmstudio.models.exporting.export_result import ExportResult
from glmstudio.models.exporting.merge_check import MergeCheck
from glmstudio.models.inspection.doctor import examine
from glmstudio.models.inspection.library import bases_on_this_machine
from glmstudio.studio.base_slot import BaseStatus, Download
from glmstudio.studio.exports import Exports
from glmstudio.studio.jobs import BackgroundJob, Jobs
from glmstudio.ui.models_words import bases_html, count, diagnosis_html, export_html, state_html
from tests.unit.golden_cases import CHATGLM2
from tests.unit.test_jobs import ended

CHECK = MergeCheck(True, 1e-7, 2e-5, 1e-6, 4e-6, 0.3, 1.0, 30, 3, "float32")


def exported(destination: Path, kind: str, scores: dict | None = None) -> BackgroundJob:
    jobs = Jobs()
    Exports(destination.parent, jobs).start(kind, Path("adapter"), "base", destination, scores, "zh")
    return ended(jobs, "export")


def test_a_default_place_is_one_that_is_free(tmp_path):
    exports = Exports(tmp_path, Jobs())
    first = exports.destination("merged", "run-0001", "best")
    assert first == tmp_path / "exports" / "run-0001-best-merged"
    first.mkdir(parents=True)
    assert exports.destination("merged", "run-0001", "best").name == "run-0001-best-merged-2"
    assert exports.destination("gguf", "run-0001", "best").name == "run-0001-best-gguf.gguf"


def test_a_name_is_a_folder_below_exports_and_no_path(tmp_path):
    exports = Exports(tmp_path, Jobs())
    assert exports.destination("merged", "run-0001", "best", "我的 v1.2") == tmp_path / "exports" / "我的 v1.2"
    for name in ("mine", "mine.gguf"):
        assert exports.destination("gguf", "run-0001", "best", name) == tmp_path / "exports" / "mine.gguf"
    for name in ("../mine", "/anywhere/mine", "~/mine", ".mine"):
        with pytest.raises(StudioError, match="name-unfit"):
            exports.destination("merged", "run-0001", "best", name)


def test_what_is_handed_over_and_what_comes_back(tmp_path, monkeypatch):
    asked = []

    def export(kind, destination, *, on_progress, should_stop, **wish):
        on_progress(1, 2, "write")
        asked.append((kind, wish))
        return ExportResult(destination, 5_000_000, CHECK)

    monkeypatch.setattr("glmstudio.models.exporting.export.export", export)
    now = exported(tmp_path / "out", "official", {"tuned": {}})
    ((kind, wish),) = asked
    assert (kind, wish["form"], wish["device"], wish["language"]) == ("merged", "official", "cpu", "zh")
    assert wish["scores"] == {"tuned": {}}
    assert (now.state, now.stage, now.done, now.total) == ("done", "write", 1, 2)
    text = export_html(now, "en")
    assert "4.77 MB" in text
    assert "1.00e-07" in text


@pytest.mark.parametrize("error", [StudioError("merge-ptuning", folder="x"), ValueError("odd")])
def test_a_failure_is_told(tmp_path, monkeypatch, error):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr("glmstudio.models.exporting.export.export", failing)
    now = exported(tmp_path / "out", "merged")
    assert now.state == "failed"
    assert export_html(now, "en").startswith('<p class="glm-bad">')


def test_one_at_a_time_and_a_stop_is_heard(tmp_path, monkeypatch):
    begun = threading.Event()

    def slow(kind, destination, *, on_progress, should_stop, **wish):
        on_progress(1, 4, "merge")
        begun.set()
        while not should_stop():
            begun.wait(0.01)
        raise StudioError("export-stopped", folder=str(destination))

    monkeypatch.setattr("glmstudio.models.exporting.export.export", slow)
    jobs = Jobs()
    exports = Exports(tmp_path, jobs)
    exports.start("merged", Path("adapter"), "base", tmp_path / "out", None, "en")
    begun.wait(600)
    assert "width:25.0%" in export_html(jobs.now("export"), "en")
    with pytest.raises(StudioError) as told:
        exports.start("merged", Path("adapter"), "base", tmp_path / "out", None, "en")
    assert (told.value.code, told.value.params) == ("export-active", {"name": "out"})
    jobs.stop(jobs.now("export").id)
    now = ended(jobs, "export")
    assert (now.state, now.error.code) == ("stopped", "export-stopped")
    assert export_html(now, "en").startswith('<p class="glm-warn">')


def test_the_state_of_a_base_that_is_coming():
    ready, begun = BaseStatus("ready", "embedded"), BackgroundJob("1", "download", {"source": "owner/name"})
    assert "✓" in state_html(ready, None, "en")
    assert "✓" in state_html(ready, replace(begun, state="done"), "en")
    running = state_html(ready, replace(begun, done=3 * 2**30, total=12 * 2**30, seconds_left=30.0), "zh")
    assert "width:25.0%" in running
    assert "3.00 GB / 12.0 GB" in running
    assert "00:30" in running
    assert "owner/name" in state_html(ready, begun, "en")
    failed = replace(begun, state="failed", error=StudioError("hub-unknown", source="o/n", endpoint="here"))
    assert "glm-bad" in state_html(ready, failed, "en")
    assert "name is not loaded" in state_html(BaseStatus("released", "owner/name"), None, "en")
    got = Download(3 * 2**30, 12 * 2**30)
    assert "width:25.0%" in state_html(BaseStatus("downloading", "owner/name", download=got), None, "en")


def test_the_list_and_a_diagnosis_in_both_languages(tmp_path):
    bases = bases_on_this_machine(tmp_path)
    for lang, word in (("zh", "可训练"), ("en", "trains")):
        html = bases_html(bases, BaseStatus("ready", "embedded"), "", lang)
        assert '<td class="m">●</td>' in html
        assert '<td class="m">○</td>' in bases_html(bases, BaseStatus("released", "embedded"), "", lang)
        assert word in html
    found = diagnosis_html(examine(CHATGLM2), "zh")
    assert "18 个张量改名" in found
    assert "请先解决上面的问题" in found
    assert (count(5_135_872), count(6_200_000_000)) == ("5.1 M", "6.2 B")
