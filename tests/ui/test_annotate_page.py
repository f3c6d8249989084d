"""The Annotate tab in a browser, on the real program: write, edit, search, undo, two colleagues, files, keys, words."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import APIResponse, Browser, Locator, Page, Route, expect

from tests.ui.program import Program, box, opened, running
from tests.ui.small_workspace import DATASET, DEV_ROWS, prepare

pytestmark = [pytest.mark.ui, pytest.mark.slow]

ROWS = "#annotate-table tr[data-id]"
# Names that are the same in every language.
PROPER = {
    "GLM",
    "Studio",
    "JSON",
    "LoRA",
    "CPU",
    "bf16",
    "fp32",
    "GB",
    "MB",
    "EN",
    "Ctrl",
    "Esc",
    "CSV",
    "JSONL",
    "Alpaca",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    root = tmp_path_factory.mktemp("annotate")
    with running(root, *prepare(root)) as started:
        yield started


@pytest.fixture
def page(browser: Browser, program: Program) -> Iterator[Page]:
    with opened(browser, program) as shown:
        expect(shown.locator(ROWS)).to_have_count(20)
        yield shown


def write(page: Page, input: str, target: str, instruction: str = "你是阅读理解器。") -> None:
    for field, text in (("instruction", instruction), ("input", input), ("target", target)):
        box(page, f"annotate-{field}").fill(text)


def saved(page: Page) -> None:
    expect(page.locator("#annotate-message")).to_contain_text("已保存")
    expect(box(page, "annotate-input")).to_have_value("")


def search(page: Page, text: str, count: int) -> Locator:
    """The rows that a search leaves; their number is awaited."""
    box(page, "annotate-search").fill(text)
    rows = page.locator(ROWS)
    if text:
        expect(page.locator("#annotate-pager .glm-count")).to_have_text(f"{count} 行")
    expect(rows).to_have_count(min(count, 20))
    return rows


def choose(page: Page, elem_id: str, option: str) -> None:
    box(page, elem_id).click()
    page.get_by_role("option", name=option, exact=True).click()


def test_a_row_is_saved_once_and_the_next_one_begins(page):
    write(page, "江畔何人初见月", '["月"]')
    box(page, "annotate-target").press("Control+Enter")
    saved(page)
    expect(box(page, "annotate-instruction")).to_have_value("你是阅读理解器。")
    expect(page.locator("#annotate-input textarea")).to_be_focused()
    write(page, "江月何年初照人", "散文一行")
    page.locator("#annotate-save").dblclick()
    saved(page)
    rows = search(page, "江", 2)
    expect(rows.first).to_contain_text("江月何年初照人")
    expect(rows.last).to_contain_text('["月"]')


def test_search_finds_a_part_of_a_target_and_marks_it(page):
    write(page, "普通的一句话", "很长的开头" * 30 + "终点在此 END")
    page.locator("#annotate-save").click()
    saved(page)
    row = search(page, "点在此 end", 1)
    expect(row.locator("mark")).to_have_text("点在此 END")
    search(page, "哪里都没有的词", 0)
    expect(page.locator("#annotate-table")).to_contain_text("没有符合条件的行")
    page.locator("[data-clear]").click()
    expect(page.locator(ROWS)).to_have_count(20)


def test_a_late_answer_does_not_undo_a_search(page):
    """The list is drawn anew after a save. The network holds that answer while a search is typed."""
    held: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        answer = route.fetch()
        if not held and "glm-count" in answer.text():
            held.append((route, answer))
        else:
            route.fulfill(response=answer)

    write(page, "只有一行有这句话", "x")
    expect(page.locator("#annotate-target-gauge")).to_contain_text(re.compile(r"\d+ / 300 词元"))  # The base is there.
    page.route("**/gradio_api/run/**", hold)
    page.locator("#annotate-save").click()
    saved(page)
    while not held:
        page.wait_for_timeout(50)
    box(page, "annotate-search").fill("只有一行有这句话")
    page.wait_for_timeout(500)  # Time for a search that does not wait to be answered first.
    ((route, answer),) = held
    route.fulfill(response=answer)
    page.wait_for_timeout(500)
    expect(page.locator("#annotate-pager .glm-count")).to_have_text("1 行")
    page.unroute_all(behavior="ignoreErrors")


def test_a_clicked_row_is_edited_and_both_undone(page):
    write(page, "待修改的一行", "旧答案")
    page.locator("#annotate-save").click()
    saved(page)
    search(page, "待修改的一行", 1).first.click()
    expect(box(page, "annotate-target")).to_have_value("旧答案")
    expect(page.locator("#annotate-heading")).to_contain_text("第 1 版")
    box(page, "annotate-target").fill("新答案")
    page.locator("#annotate-save").click()
    saved(page)
    expect(page.locator(ROWS)).to_contain_text("新答案")
    page.locator("#annotate-undo").click()
    expect(page.locator(ROWS)).to_contain_text("旧答案")
    expect(box(page, "annotate-target")).to_have_value("旧答案")
    page.locator("#annotate-undo").click()
    expect(page.locator(ROWS)).to_have_count(0)
    expect(box(page, "annotate-input")).to_have_value("待修改的一行")
    expect(page.locator("#annotate-undo")).to_be_disabled()


def test_a_deleted_row_comes_back(page):
    write(page, "会被删除的一行", "x")
    page.locator("#annotate-save").click()
    saved(page)
    search(page, "会被删除的一行", 1).first.click()
    page.locator("#annotate-delete").click()
    expect(page.locator(ROWS)).to_have_count(0)
    page.locator("#annotate-undo").click()
    expect(page.locator(ROWS)).to_have_count(1)


def test_two_colleagues_cannot_overwrite_each_other(browser, program, page):
    write(page, "两个人同时改", "原来的")
    page.locator("#annotate-save").click()
    saved(page)
    search(page, "两个人同时改", 1).first.click()
    expect(box(page, "annotate-target")).to_have_value("原来的")
    with opened(browser, program) as other:
        search(other, "两个人同时改", 1).first.click()
        expect(box(other, "annotate-target")).to_have_value("原来的")
        box(other, "annotate-target").fill("同事的答案")
        other.locator("#annotate-save").click()
        saved(other)
    box(page, "annotate-target").fill("我的答案")
    page.locator("#annotate-save").click()
    expect(page.locator("#annotate-conflict")).to_contain_text("同事的答案")
    page.locator("#annotate-take-theirs").click()
    expect(box(page, "annotate-target")).to_have_value("同事的答案")
    page.locator("#annotate-undo").click()
    expect(box(page, "annotate-target")).to_have_value("我的答案")
    page.locator("#annotate-save").click()
    page.locator("#annotate-keep-mine").click()
    saved(page)
    expect(page.locator(ROWS)).to_contain_text("我的答案")


def test_counts_and_json_are_said_under_the_fields_and_nothing_is_refused(page):
    gauge = page.locator("#annotate-target-gauge")
    triples = [{"subject": "a", "predicate": "b", "object": "c"}] * 2
    write(page, "坏掉的JSON在此", f"```json\n{json.dumps(triples)}\n```")
    expect(gauge).to_contain_text("2 个三元组")
    expect(gauge).to_contain_text(re.compile(r"\d+ / 300 词元"))
    box(page, "annotate-target").fill('[{"subject": ')
    expect(gauge).to_contain_text("第 1 行第 13 列")
    page.locator("#annotate-save").click()
    saved(page)
    expect(search(page, "坏掉的JSON在此", 1).first).to_contain_text("⚠")


def test_pages_filters_and_arrow_keys_move_through_the_rows(page):
    choose(page, "annotate-filter-dataset", DATASET)
    pager = page.locator("#annotate-pager")
    pager.locator("button[data-page]").nth(2).click()
    expect(pager.locator("[aria-current]")).to_have_text("2")
    choose(page, "annotate-filter-split", "验证")
    expect(pager.locator(".glm-count")).to_have_text(f"{DEV_ROWS} 行")
    rows = page.locator(ROWS)
    expect(rows).to_have_count(DEV_ROWS)
    rows.first.click()
    expect(page.locator("#annotate-heading")).to_contain_text(rows.first.get_attribute("data-id"))
    box(page, "annotate-input").press("Control+ArrowDown")
    expect(page.locator("#annotate-heading")).to_contain_text(rows.nth(1).get_attribute("data-id"))
    box(page, "annotate-input").press("Escape")
    expect(page.locator("#annotate-heading")).to_have_text("新的一行")


def test_unsaved_text_survives_another_row_and_a_reload(page):
    write(page, "还没保存的输入", "还没保存的目标")
    page.locator(ROWS).first.click()
    expect(page.locator("#annotate-message")).to_contain_text("撤销")
    page.locator("#annotate-undo").click()
    expect(box(page, "annotate-input")).to_have_value("还没保存的输入")
    expect(page.locator("#annotate-target-gauge")).to_contain_text("词元")
    page.reload()
    expect(box(page, "annotate-target")).to_have_value("还没保存的目标")


def test_each_tab_keeps_its_own_text_and_a_closed_one_hands_it_on(page, program):
    box(page, "annotate-input").press_sequentially("第一页的字")
    other = page.context.new_page()
    other.goto(program.url)
    expect(other.locator("#annotate-heading")).to_contain_text("新的一行")
    expect(box(other, "annotate-input")).to_have_value("")
    box(other, "annotate-input").press_sequentially("第二页的字")
    page.reload()
    expect(box(page, "annotate-input")).to_have_value("第一页的字")
    other.close()
    third = page.context.new_page()
    third.goto(program.url)
    expect(box(third, "annotate-input")).to_have_value("第二页的字")


def test_a_saved_row_leads_to_the_next_one_over_the_end_of_the_page(page):
    choose(page, "annotate-filter-dataset", DATASET)
    row, heading = page.locator(ROWS), page.locator("#annotate-heading")
    expect(page.locator("#annotate-pager .glm-count")).to_have_text(re.compile(r"^[67]\d 行"))
    last = int(row.last.get_attribute("data-id"))
    row.last.click()
    expect(heading).to_contain_text(f"第 {last} 行")
    box(page, "annotate-target").fill("改过的目标")
    box(page, "annotate-target").press("Control+Enter")
    expect(heading).to_contain_text(f"第 {last - 1} 行")
    expect(page.locator("#annotate-message")).to_contain_text(f"第 {last} 行已保存")
    expect(page.locator("#annotate-target textarea")).to_be_focused()
    expect(page.locator("#annotate-pager [aria-current]")).to_have_text("2")
    expect(page.locator(f"{ROWS}[aria-selected]")).to_have_attribute("data-id", str(last - 1))
    page.locator("#annotate-save").click()
    expect(page.locator("#annotate-message")).to_contain_text(f"第 {last - 1} 行没有改动")
    expect(heading).to_contain_text(f"第 {last - 2} 行")
    page.locator("#annotate-delete").click()
    expect(heading).to_contain_text(f"第 {last - 3} 行")
    page.reload()
    choose(page, "annotate-filter-status", "回收站")
    page.locator("#annotate-table tr", has_text=str(last - 2)).locator("[data-restore]").click()
    expect(heading).to_contain_text(f"第 {last - 2} 行")
    expect(page.locator("#annotate-message")).to_contain_text("已恢复")


def test_a_changed_status_alone_is_not_thrown_away(page):
    page.locator(ROWS).nth(3).click()
    expect(box(page, "annotate-status")).to_have_value("完成")
    choose(page, "annotate-status", "草稿")
    page.locator(ROWS).nth(5).click()
    expect(page.locator("#annotate-message")).to_contain_text("撤销")
    page.locator(ROWS).nth(3).click()
    expect(box(page, "annotate-status")).to_have_value("草稿")


def test_keys_in_the_search_do_nothing_to_the_form(page):
    write(page, "写了一半", "")
    search = box(page, "annotate-search")
    search.fill("没有这一行")
    search.press("Control+Enter")
    search.press("Escape")
    expect(search).to_have_value("")
    expect(page.locator(ROWS)).to_have_count(20)
    expect(box(page, "annotate-input")).to_have_value("写了一半")
    expect(page.locator("#annotate-heading")).to_have_text("新的一行")


def test_tab_leaves_no_list_of_a_dropdown_open(page):
    box(page, "annotate-dataset").focus()
    lists = page.locator("ul[role=listbox]:visible")
    expect(lists).to_have_count(1)
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.locator("#annotate-instruction textarea")).to_be_focused()
    expect(lists).to_have_count(0)


def test_a_file_is_shown_before_it_comes_in_and_goes_out_as_it_was(page, tmp_path):
    lines = [
        {"context": f"Instruction: 导入的\nInput: 句子{n}，独一无二\nAnswer: ", "target": f'["答{n}"]'}
        for n in range(3)
    ]
    written = [json.dumps(line, ensure_ascii=False) for line in lines]
    source = tmp_path / "poems_dev.jsonl"
    source.write_text("\n".join([*written[:2], "{broken", written[2]]) + "\n", encoding="utf-8")
    page.locator("#annotate-files input[type=file]").set_input_files(source)
    found = page.locator("#annotate-import-found")
    expect(found).to_contain_text("可导入 3 行")
    expect(found).to_contain_text("第 3 行")
    expect(box(page, "annotate-import-dataset")).to_have_value("poems")
    expect(box(page, "annotate-import-split")).to_have_value("验证")
    page.locator("#annotate-import-confirm").click()
    expect(found).to_contain_text("已将 3 行导入“poems”")
    page.locator("#annotate-import-undo").click()
    expect(found).to_contain_text("3 行已从“poems”移除")
    expect(page.locator("#annotate-table")).not_to_contain_text("独一无二")
    page.locator("#annotate-import-confirm").click()
    expect(found).to_contain_text("已将 3 行导入“poems”")
    page.locator("#annotate-import-close").click()
    search(page, "独一无二", 3)
    page.locator("#annotate-export").click()
    expect(page.locator("#annotate-export-panel")).to_contain_text("验证 3 行")
    with page.expect_download() as download:
        page.locator("#annotate-download").click()
    assert download.value.suggested_filename == "all.jsonl"
    out = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in out] == [line | {"split": "dev"} for line in lines]
    expect(page.locator("#annotate-export-panel")).to_contain_text("✓ all.jsonl：验证 3 行")


def test_a_file_that_cannot_be_read_is_refused_in_words_and_the_form_stays(page, tmp_path):
    write(page, "正在写的一行", "还没有保存")
    source = tmp_path / "no_prompt.csv"
    source.write_text("id,target\n问,题\n", encoding="utf-8")
    for name, reason in ((source, "target"), (tmp_path / "rows.xlsx", "rows.xlsx")):
        if not name.exists():
            name.write_bytes(b"PK\x03\x04 no table")
        page.locator("#annotate-files input[type=file]").set_input_files(name)
        expect(page.locator("#annotate-import-problem")).to_contain_text(reason)
    expect(box(page, "annotate-target")).to_have_value("还没有保存")
    expect(page.locator("#annotate-target")).to_be_visible()
    for plate in page.locator(".wrap > .error").all():
        expect(plate).to_be_hidden()
    assert "Error" not in page.inner_text("body")


def test_the_language_lasts_and_leaves_no_english_behind(page):
    words = set(re.findall(r"[A-Za-z][A-Za-z0-9]+", page.locator("#annotate-right, #header").first.inner_text()))
    words |= set(re.findall(r"[A-Za-z][A-Za-z0-9]+", page.locator("#annotate-right").inner_text()))
    assert words - PROPER - {"tiny", DATASET, "default"} == set()
    page.locator("#header [data-language=en]").click()
    expect(page.locator("#tab-annotate-button")).to_have_text("Annotate")
    expect(page.locator("#annotate-save")).to_contain_text("Save, next")
    page.locator("#tab-compare-button").click()
    page.reload()
    expect(page.locator("#tab-annotate-button")).to_have_text("Annotate")
    expect(page.locator("#tab-compare")).to_be_visible()


def test_the_colours_last(page):
    page.locator("#header [data-colours]").click()
    expect(page.locator("body")).to_have_class(re.compile("dark"))
    page.reload()
    expect(page.locator("#header [data-colours]")).to_be_visible()
    expect(page.locator("body")).to_have_class(re.compile("dark"))
    background = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--glm-page').trim()")
    assert background == "#15171b"


def test_everything_fits_on_one_screen(page):
    for width, height in ((1280, 800), (1920, 1080)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.scrollingElement.scrollHeight") <= height
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        below = page.locator("#annotate-save").bounding_box()
        assert below["y"] + below["height"] <= height


def test_the_header_says_the_state_of_the_base(page):
    header = page.locator("#header")
    expect(header).to_contain_text("就绪")
    expect(header).to_contain_text("tiny")


def log_in(page: Page, name: str, password: str) -> None:
    page.locator("input").nth(0).fill(name)
    page.locator("input").nth(1).fill(password)
    with page.expect_response("**/login"):
        page.get_by_role("button").first.click()


def test_with_a_password_each_row_carries_the_name_of_who_saved_it(browser, tmp_path):
    with running(tmp_path, *prepare(tmp_path), "--password", "correct horse") as program:
        context = browser.new_context(locale="zh-CN")
        page = context.new_page()
        page.goto(program.url)
        expect(page.locator("body")).to_contain_text("请用自己的名字登录")
        log_in(page, "li", "wrong")
        # A refused login empties the fields once its answer is there.
        expect(page.locator("input").nth(0)).to_have_value("")
        expect(page.locator("#annotate-table")).to_have_count(0)
        log_in(page, "li", "correct horse")
        expect(page.locator(ROWS)).to_have_count(20)
        write(page, "李写的一行", "x")
        page.locator("#annotate-save").click()
        expect(page.locator("#annotate-message")).to_contain_text(re.compile(r"\d\d:\d\d，li"))
        context.close()
        assert "correct horse" in program.log
