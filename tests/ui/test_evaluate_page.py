"""The Evaluate tab in a browser, on the real program: scores, the rows behind them, a prompt taken to Compare."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.ui.program import Program, box, opened, running
from tests.ui.small_workspace import DATASET, DEV_ROWS, prepare

pytestmark = [pytest.mark.ui, pytest.mark.slow]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    root = tmp_path_factory.mktemp("evaluate")
    with running(root, *prepare(root, runs=1)) as started:
        yield started


def choose(page: Page, elem_id: str, option: str) -> None:
    box(page, elem_id).click()
    page.get_by_role("option", name=option).first.click()


@pytest.fixture
def page(browser: Browser, program: Program) -> Iterator[Page]:
    with opened(browser, program) as shown:
        shown.locator("#tab-evaluate-button").click()
        yield shown


def test_scores_rows_and_the_way_to_compare(page):
    expect(page.locator("#evaluate-scores")).to_contain_text("还没有评测")
    expect(box(page, "evaluate-dataset")).to_have_value(DATASET)
    expect(page.locator("#evaluate-start")).to_be_enabled()
    expect(page.locator("#evaluate-ask")).to_be_disabled()
    box(page, "evaluate-max-new-tokens").fill("12")
    page.locator("#evaluate-start").click()
    expect(page.locator("#evaluate-scores table")).to_be_visible()
    expect(page.locator("#evaluate-scores")).to_contain_text("JSON 有效")
    rows = page.locator("#evaluate-rows tr[data-place]")
    expect(rows).to_have_count(DEV_ROWS)
    page.locator("#evaluate-rows table").focus()
    for place in range(3):
        page.keyboard.press("ArrowDown")
        expect(rows.nth(place)).to_have_attribute("aria-selected", "true")
        expect(page.locator("#evaluate-rows table")).to_be_focused()
    expect(page.locator("#evaluate-row dd").nth(1)).to_contain_text("302 Oslo is blue")
    page.locator("#tab-compare-button").click()
    choose(page, "compare-run", "最后")
    page.locator("#tab-evaluate-button").click()
    page.locator("#evaluate-ask").click()
    expect(page.locator("#compare-generate")).to_be_visible()
    expect(box(page, "compare-input")).to_have_value("302 Oslo is blue. red green")
    expect(box(page, "compare-run")).to_have_value(re.compile("最佳"))
    expect(box(page, "compare-dataset")).to_have_value(DATASET)
    expect(page.locator("#compare-expected")).to_contain_text("期望（验证行")


def test_the_scoreboard_is_there_after_a_reload_and_the_filter_chooses_rows(page):
    expect(page.locator("#evaluate-boards tr.chosen")).to_contain_text("运行 1")
    expect(page.locator("#evaluate-rows tr[data-place]")).to_have_count(DEV_ROWS)
    page.locator("#evaluate-filter label").filter(has_text="变差").click()
    expect(page.locator("#evaluate-rows")).to_contain_text("没有这样的行")


def test_what_is_wrong_is_said(page):
    expect(page.locator("#evaluate-start")).to_be_enabled()
    box(page, "evaluate-max-new-tokens").fill("-1")
    page.locator("#evaluate-start").click()
    expect(page.locator(".toast-wrap")).to_contain_text("“最多词元数”为 -1")


def test_the_tab_fits_one_screen(page):
    assert page.evaluate("document.documentElement.scrollHeight") <= 800
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
