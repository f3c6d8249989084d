"""An adapter trained as a dialogue is asked as one, wherever it is asked, and says what its rows say."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from glmstudio.data.example import Example
from glmstudio.models.adapters.adapter_ref import AdapterRef
from glmstudio.models.adapters.adapter_version import adapter_prompt, adapter_version
from glmstudio.models.chat_format import render_prompt
from glmstudio.models.loading import load_base
from glmstudio.models.resident import Resident
from glmstudio.settings import GenerationSettings, LoraSettings
from glmstudio.studio import Studio
from glmstudio.workspace import Workspace
from tests.tiny_base import rows
from tests.tiny_families import native_folder
from tests.train.runs import FAST, run_in

ASK = GenerationSettings(max_new_tokens=8)
REF = AdapterRef("run-0001", "best")
IN_CHAT = dataclasses.replace(FAST, prompt_style="chat", num_train_epochs=12, max_source_length=60)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A studio whose only run was trained in chat on a tiny GLM-4-0414; every row's answer is "red"."""
    root: Path = tmp_path_factory.mktemp("studio")
    resident = Resident(load_base(native_folder("glm4", root / "base"), device="cpu", dtype="float32"))
    studio = Studio(Workspace(root))
    red = [dataclasses.replace(row, target="red") for row in rows(8)]
    folder = studio._workspace.run_folder("run-0001")
    run_in(folder, IN_CHAT, lora=LoraSettings(r=8), train_rows=red, dev_rows=red[:2], resident=resident)
    studio._base._now.resident = resident
    studio._base._now.settled.set()
    yield studio
    studio.close()


def prompts_asked(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> list[list[int]]:
    """The ids that the engine is given from now on."""
    import glmstudio.inference.engine as engine

    seen: list[list[int]] = []

    def told(resident: Any, asked: Any, *rest: Any, **more: Any) -> Any:
        seen.extend(row.ids for row in asked)
        return getattr(engine, name)(resident, asked, *rest, **more)

    monkeypatch.setattr(f"glmstudio.{module}.{name}", told)
    return seen


def expected(studio: Studio, row: Example, style: str, limit: int) -> list[int]:
    base = studio.resident().base
    prompt = render_prompt(
        base.tokenizer, base.family, row.instruction, row.input, max_source_length=limit, style=style
    )
    return prompt.ids


def test_compare_asks_base_and_adapter_in_the_recorded_style(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = adapter_prompt(studio._workspace.run_folder("run-0001") / "best")
    assert (prompt.style, prompt.max_source_length, prompt.recorded) == ("chat", 60, True)
    seen, row = prompts_asked(monkeypatch, "inference.compare", "generate"), rows(1)[0]
    *_, last = studio.compare(row.instruction, row.input, REF, ASK, prompt_style="instruction")
    assert seen == [expected(studio, row, "chat", 60)] * 2
    assert [(answer.text, answer.finish_reason) for answer in last.rows[1:]] == [("red", "stop")]
    version = adapter_version(studio._workspace.run_folder("run-0001") / "best")
    assert last.adapter == AdapterRef("run-0001", "best", version.digest, version.step)
    assert last.rows[1].label == version.digest
    assert version.step > 0


def test_the_base_alone_is_asked_as_one_chooses(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, row = prompts_asked(monkeypatch, "inference.compare", "generate"), rows(1)[0]
    for style in ("instruction", "chat"):
        list(studio.compare(row.instruction, row.input, None, ASK, prompt_style=style))
    assert seen == [expected(studio, row, style, 400) for style in ("instruction", "chat")]


def test_scores_count_the_answer_without_its_head(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, examples = prompts_asked(monkeypatch, "evaluation.evaluate", "answers"), rows(3)
    red = [dataclasses.replace(row, target="red") for row in examples]
    result = studio._asking.evaluate(red, REF, ASK)
    assert sorted(seen) == sorted(2 * [expected(studio, row, "chat", 60) for row in examples])
    assert result["tuned"]["exact_match"] == 1.0
    assert [row["tuned"] for row in result["rows"]] == ["red"] * 3
    version = adapter_version(studio._workspace.run_folder("run-0001") / "best")
    told = result["answered_by"]
    assert (told["digest"], told["step"], told["prompt_style"]) == (version.digest, version.step, "chat")
    assert told["base"]["family"] == "glm4"
