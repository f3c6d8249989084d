"""The whole journey in a browser, on the real program and the real embedded base."""

import pytest
from playwright.sync_api import Page, expect

from tests.ui.program import box, opened, points, running, wait_for_text

pytestmark = [pytest.mark.ui, pytest.mark.slow]

INSTRUCTION = "请只按要求的格式作答。"
INPUT = "找出句子里的三元组，用json回答：\n\n《清河旧梦》是连载于青简文学网的网络小说，作者是王小明。"
TARGET = '["清河"]'
CORRECTION = '["王小明的更正"]'


def annotate_a_row(page: Page) -> None:
    box(page, "annotate-instruction").fill(INSTRUCTION)
    box(page, "annotate-input").fill(INPUT)
    box(page, "annotate-target").fill(TARGET)
    page.locator("#annotate-save").click()
    expect(box(page, "annotate-target")).to_have_value("")
    assert found_rows(page, "清河旧梦") == 1


def found_rows(page: Page, text: str) -> int:
    """How many rows the table shows for a search that must find something."""
    page.locator("#tab-annotate-button").click()
    box(page, "annotate-search").fill(text)
    table = page.locator("#annotate-table")
    expect(table).to_contain_text(text)
    return len([line for line in table.inner_text().splitlines() if text in line])


def train_a_short_run(page: Page) -> None:
    page.locator("#tab-train-button").click()
    expect(box(page, "train-dataset")).to_have_value("demo")
    start = page.locator("#train-start")
    expect(start).to_be_enabled()
    page.locator("#train-preset label").first.click()
    expect(box(page, "train-num-train-epochs")).to_have_value("3")
    start.click()
    page.wait_for_function("() => document.querySelector('#train-chart .js-plotly-plot')?.data?.[0]?.x?.length > 3")
    seen = points(page)
    page.wait_for_function(
        "seen => document.querySelector('#train-chart .js-plotly-plot').data[0].x.length > seen + 5", arg=seen
    )


def refresh_keeps_the_run(page: Page) -> None:
    before = points(page)
    page.reload()
    page.locator("#tab-train-button").click()
    page.wait_for_function(
        "n => document.querySelector('#train-chart .js-plotly-plot')?.data?.[0]?.x?.length >= n", arg=before
    )
    start = page.locator("#train-start")
    assert not start.is_visible() or start.is_disabled()
    wait_for_text(page, "train-status", "完成")


def compare_and_correct(page: Page) -> None:
    page.locator("#tab-compare-button").click()
    # The page was opened before there was a checkpoint.
    expect(page.locator("#compare-tuned .answer")).to_have_attribute("data-hint", "训练后的回答会显示在这里。")
    box(page, "compare-instruction").fill(INSTRUCTION)
    box(page, "compare-input").fill(INPUT)
    page.locator("#compare-generate").click()
    expect(page.locator("#compare-feedback")).to_be_enabled()
    base = page.locator("#compare-base").inner_text()
    tuned = page.locator("#compare-tuned").inner_text()
    assert base.strip()
    assert "json" in tuned
    assert base != tuned
    box(page, "compare-correct").fill(CORRECTION)
    page.locator("#compare-feedback").click()
    expect(page.locator("#compare-feedback")).to_be_disabled()


def test_annotate_train_compare_and_back(browser, tmp_path):
    with running(tmp_path) as program, opened(browser, program) as page:
        annotate_a_row(page)
        train_a_short_run(page)
        refresh_keeps_the_run(page)
        compare_and_correct(page)
        assert found_rows(page, "王小明的更正") == 1

    with running(tmp_path) as program, opened(browser, program) as page:
        page.locator("#tab-train-button").click()
        page.wait_for_function("() => document.querySelector('#train-chart .js-plotly-plot')?.data?.[0]?.x?.length > 8")
        page.locator("#tab-compare-button").click()
        assert "1" in box(page, "compare-run").input_value()
        assert found_rows(page, "王小明的更正") == 1
