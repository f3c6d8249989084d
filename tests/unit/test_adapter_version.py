"""Which content a checkpoint has: by its files, of one moment, with the record of how it is asked."""

import json
import os
import threading
from pathlib import Path

import pytest

from glmstudio.errors import StudioError
from glmstudio.models.adapters import adapter_version as module
from glmstudio.models.adapters.adapter_version import AdapterPrompt, adapter_prompt, adapter_version
from glmstudio.training.runs import RunFolder

RECORD = {"prompt_style": "chat", "max_source_length": 123, "step": 7}


def written(folder: Path, weights: str = "one", record: object = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    (folder / "adapter_model.bin").write_text(weights, encoding="utf-8")
    if record is not None:
        text = record if isinstance(record, str) else json.dumps(record)
        (folder / "glmstudio.json").write_text(text, encoding="utf-8")
    return folder


def test_an_adapter_is_known_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    best = adapter_version(written(tmp_path / "run" / "best", record=RECORD))
    assert (best.prompt, best.step) == (AdapterPrompt("chat", 123, recorded=True), 7)
    assert adapter_version(written(tmp_path / "elsewhere")).digest == best.digest
    assert adapter_version(written(tmp_path / "other", "two")).digest != best.digest
    assert best.is_there
    os.utime(tmp_path / "run" / "best" / "adapter_model.bin", ns=(1, 1))
    assert not best.is_there


def test_files_that_are_known_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = adapter_version(written(tmp_path / "a"))
    monkeypatch.setattr(module, "_digest", None)
    assert adapter_version(tmp_path / "a", [known]) is known


@pytest.mark.parametrize(
    "record", ["{", "[]", '{"prompt_style": "chat"}', '{"prompt_style": "x", "max_source_length": 9}', None]
)
def test_a_record_that_says_nothing_usable_is_none(record: str | None, tmp_path: Path) -> None:
    assert adapter_prompt(written(tmp_path / "a", record=record)) == AdapterPrompt("instruction", 400, recorded=False)


def test_a_record_that_cannot_be_read_is_told_instead_of_a_wrong_prompt(tmp_path: Path) -> None:
    (written(tmp_path / "a") / "glmstudio.json").mkdir()
    with pytest.raises(StudioError) as told:
        adapter_prompt(tmp_path / "a")
    assert (told.value.code, Path(told.value.params["file"]).name) == ("file-unreadable", "glmstudio.json")


def test_no_adapter_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(StudioError, match="adapter-missing"):
            adapter_version(path)


def test_whoever_looks_while_best_is_moved_sees_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look begins when the old one has gone and the new one has not come."""
    run = RunFolder(tmp_path / "run")
    written(run.path / "best", record=RECORD)
    gone, looked, move = threading.Event(), threading.Event(), os.replace

    def moved(source: Path, target: Path) -> None:
        if Path(target) == run.path / "best":
            gone.set()
            assert looked.wait(600)
        move(source, target)

    def waits(seconds: float) -> None:
        looked.set()
        putting.join(600)

    monkeypatch.setattr(os, "replace", moved)
    monkeypatch.setattr(module.time, "sleep", waits)
    new = RECORD | {"step": 9}
    putting = threading.Thread(target=lambda: run.put("best", lambda folder: written(folder, "two", new) and None))
    putting.start()
    assert gone.wait(600)
    assert run.checkpoints() == ["best"]
    found = adapter_version(run.path / "best")
    assert looked.is_set()
    assert (found.step, found.prompt.recorded) == (9, True)


def test_whoever_is_overtaken_while_reading_reads_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, read = RunFolder(tmp_path / "run"), module._digest
    written(run.path / "best", record=RECORD)
    news = iter([RECORD | {"step": 9}])

    def overtaken(form: object) -> str:
        digest = read(form)
        if record := next(news, None):
            run.put("best", lambda folder: written(folder, "two", record) and None)
        return digest

    monkeypatch.setattr(module, "_digest", overtaken)
    found = adapter_version(run.path / "best")
    assert (found.step, found.digest) == (9, read(found.form))
    news = iter(RECORD | {"step": number} for number in range(100))
    with pytest.raises(StudioError, match="adapter-changing"):
        adapter_version(run.path / "best")
