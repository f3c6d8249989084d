"""Every error of a handler reaches a person as a sentence; what is no StudioError has its trace in the log."""

import asyncio
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import pytest

from glmstudio import faults
from glmstudio.errors import StudioError
from glmstudio.ui.error_boundary import ErrorBoundary, problem_html


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "log" / "glmstudio.log"
    faults.keep_log(path)
    yield path
    faults.keep_log(path)


def told(handler: Callable[[], None]) -> gr.Error:
    """What the page shows where `handler` runs behind a button."""
    with ErrorBoundary() as blocks:
        gr.Button().click(handler, None, None)
    # In a thread of its own: behind a browser's tests a loop runs in this one.
    with ThreadPoolExecutor(1) as apart, pytest.raises(gr.Error) as caught:
        apart.submit(asyncio.run, blocks.process_api(0, [], request=None)).result()
    return caught.value


def fail() -> None:
    raise KeyError("setting.target.label")


def test_a_fault_is_a_sentence_with_a_number_and_its_trace_is_in_the_log(log):
    shown = told(fail)
    number = re.search(r"\d{6}", shown.message)
    assert number
    assert "KeyError" not in shown.message
    assert not shown.print_exception
    written = log.read_text(encoding="utf-8")
    assert f"fault {number[0]}: KeyError" in written
    assert "raise KeyError" in written


def test_a_fault_that_comes_every_second_fills_no_log(log):
    assert told(fail).message == told(fail).message
    assert log.read_text(encoding="utf-8").count("Traceback") == 1


def test_a_studio_error_is_its_own_sentence_and_no_fault(log):
    def refuse() -> None:
        raise StudioError("setting-empty", field="learning_rate")

    assert "学习率" in told(refuse).message
    assert not log.exists()


def test_a_field_that_is_no_setting_has_its_label_or_its_own_name():
    assert "目标" in problem_html(StudioError("text-unstorable", field="target"), "zh")
    assert "kind has" in problem_html(StudioError("setting-empty", field="kind"), "en")


def test_words_of_an_error_are_no_markup():
    html = problem_html(StudioError("base-missing", source="<img src=x onerror=alert(1)>"), "en")
    assert "<img" not in html
