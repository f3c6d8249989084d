"""The Compare tab in a browser, on the real program with the tiny base: ask, stream, stop, views, verdict."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.ui.program import Program, box, opened, running
from tests.ui.small_workspace import DEV_ROWS, prepare

pytestmark = [pytest.mark.ui, pytest.mark.slow]

# Answers of so many tokens take minutes: none ends by itself while a test lasts.
ENDLESS = 32768
HOSTILE = "<img src=x onerror=\"document.title='taken'\"> ${1 + 1} {{value}} `"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    root = tmp_path_factory.mktemp("compare")
    arguments = prepare(root, runs=1)
    with running(root, *arguments) as started:
        yield started


@pytest.fixture
def page(browser: Browser, program: Program) -> Iterator[Page]:
    with opened(browser, program) as shown:
        shown.locator("#tab-compare-button").click()
        yield shown


def ask(page: Page, text: str, *, tokens: int = 12, temperature: int = 0) -> None:
    """Asks; the tiny base never ends an answer by itself."""
    box(page, "compare-temperature").fill(str(temperature))
    box(page, "compare-max-new-tokens").fill(str(tokens))
    box(page, "compare-instruction").fill("Name it.")
    box(page, "compare-input").fill(text)
    expect(page.locator("#compare-generate")).to_be_enabled()
    page.locator("#compare-generate").click()
    expect(page.locator("#compare-stop")).to_be_enabled()


def answered(page: Page) -> tuple[str, str]:
    """Waits for the end and gives both panes' texts."""
    expect(page.locator("#compare-right")).to_be_enabled()
    expect(page.locator("#compare-generate")).to_be_enabled()
    return tuple(page.locator(f"#compare-{name}").inner_text() for name in ("base", "tuned"))


def rows_with(page: Page, text: str) -> int:
    page.locator("#tab-annotate-button").click()
    box(page, "annotate-search").fill(text)
    expect(page.locator("#annotate-table")).to_contain_text(text)
    return page.locator("#annotate-table tr").filter(has_text=text).count()


def test_the_newest_best_checkpoint_is_chosen_and_what_is_missing_is_said(page):
    expect(box(page, "compare-run")).to_have_value(re.compile("运行 1 · 最佳"))
    expect(page.locator("#compare-message")).to_contain_text(re.compile("请填写指令或输入|基座加载中"))
    assert page.locator("#compare-generate").is_disabled()
    assert page.locator("#compare-feedback").is_disabled()
    assert page.locator("#compare-tuned").inner_text() == ""


def test_a_dev_row_is_asked_and_stays_one_or_moves_as_a_person_says(page):
    page.locator("#compare-dev-row").click()
    expect(page.locator("#compare-expected")).to_contain_text(f"期望（验证行 1 / {DEV_ROWS}）")
    page.locator("#compare-later").click()
    expect(page.locator("#compare-expected")).to_contain_text(f"期望（验证行 2 / {DEV_ROWS}）")
    box(page, "compare-max-new-tokens").fill("12")
    expect(page.locator("#compare-generate")).to_be_enabled()
    page.locator("#compare-input textarea").press("Control+Enter")
    base, tuned = answered(page)
    assert base != tuned
    expect(page.locator("#compare-tuned-head")).to_contain_text("词元")
    expect(box(page, "compare-correct")).to_have_value(tuned)
    verdict = page.locator("#compare-verdict-message")
    expect(page.locator("#compare-fate")).to_contain_text("这是验证行")
    box(page, "compare-correct").fill('["第一次更正"]')
    page.locator("#compare-feedback").click()
    expect(verdict).to_contain_text("目标已更正，仍为验证行")
    expect(page.locator("#compare-feedback")).to_be_disabled()
    box(page, "compare-correct").fill('["第二次更正"]')
    page.locator("#compare-feedback").click()
    expect(page.locator("#compare-feedback")).to_be_disabled()
    assert rows_with(page, "第二次更正") == 1
    expect(page.locator("#annotate-table")).to_contain_text("验证")
    box(page, "annotate-search").fill("第一次更正")
    expect(page.locator("#annotate-table")).not_to_contain_text("第二次更正")
    # The same prompt, typed after a reload: it is the dev row still.
    page.reload()
    page.locator("#tab-compare-button").click()
    expect(page.locator("#compare-generate")).to_be_enabled()
    page.locator("#compare-generate").click()
    answered(page)
    page.locator("#compare-fate label").filter(has_text="移入训练集").click()
    page.locator("#compare-right").click()
    expect(verdict).to_contain_text("已从验证集移入训练集")
    page.locator("#compare-dev-row").click()
    expect(page.locator("#compare-expected")).to_contain_text(f"期望（验证行 1 / {DEV_ROWS - 1}）")


def test_a_right_answer_is_saved_as_it_is(page):
    ask(page, "4711 Oslo is red.")
    answered(page)
    page.locator("#compare-right").click()
    expect(page.locator("#compare-verdict-message")).to_contain_text("已存入")
    assert rows_with(page, "4711 Oslo") == 1


def test_texts_are_never_markup_in_any_view(page):
    ask(page, HOSTILE)
    base, tuned = answered(page)
    for view in (1, 2, 0):
        page.locator("#compare-view label").nth(view).click()
        page.locator("#compare-view label.selected").nth(0).wait_for()
    box(page, "compare-correct").fill(HOSTILE)
    page.locator("#compare-feedback").click()
    expect(page.locator("#compare-feedback")).to_be_disabled()
    assert (page.locator("#compare-base").inner_text(), page.locator("#compare-tuned").inner_text()) == (base, tuned)
    assert rows_with(page, "onerror") == 1
    assert page.title() == "GLM Studio"
    assert page.locator("img[src=x]").count() == 0


def test_stop_ends_the_answers_and_the_next_question_is_free(page):
    ask(page, "301 Rome is green.", tokens=ENDLESS, temperature=5)
    page.locator("#compare-stop").click()
    answered(page)
    expect(page.locator("#compare-base-head")).to_contain_text("已停止")


def test_a_setting_out_of_bounds_is_named_and_nothing_is_asked(page):
    box(page, "compare-input").fill("302 Bern is blue.")
    box(page, "compare-max-new-tokens").fill("-1")
    expect(page.locator("#compare-generate")).to_be_enabled()
    page.locator("#compare-generate").click()
    expect(page.locator("#compare-message")).to_contain_text("“最多词元数”为 -1")
    expect(page.locator("#compare-generate")).to_be_enabled()


def test_a_closed_tab_frees_the_model(browser, program, page):
    with opened(browser, program) as other:
        other.locator("#tab-compare-button").click()
        ask(other, "303 Lima is grey.", tokens=ENDLESS, temperature=5)
        expect(other.locator("#compare-base-head")).to_contain_text("词元")
    ask(page, "304 Cairo is pink.")
    answered(page)


def test_a_reload_keeps_the_prompt(page):
    box(page, "compare-instruction").fill("翻译成中文。")
    page.wait_for_function("localStorage.getItem('glmstudio-prompt')?.includes('翻译成中文')")
    page.reload()
    page.locator("#tab-compare-button").click()
    expect(box(page, "compare-instruction")).to_have_value("翻译成中文。")
    expect(page.locator("#compare-generate")).to_be_enabled()


def test_without_a_run_the_base_answers_alone_and_the_page_says_what_to_do(browser, tmp_path):
    arguments = prepare(tmp_path)
    with running(tmp_path, *arguments) as started, opened(browser, started, language="en-US") as page:
        page.locator("#tab-compare-button").click()
        hint = page.locator("#compare-tuned .answer")
        expect(hint).to_have_attribute("data-hint", re.compile("start one in Train"))
        ask(page, "305 Paris is red.")
        answered(page)
        expect(page.locator("#compare-base-head")).to_contain_text("tokens")
        assert page.locator("#compare-tuned").inner_text() == ""
        assert not re.search("[\u4e00-\u9fff]", page.locator("#compare-page").inner_text())


def test_the_tab_fits_one_screen(page):
    assert page.evaluate("document.documentElement.scrollHeight") <= 800
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
