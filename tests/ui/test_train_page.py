"""The Train tab in a browser, on the real program with the tiny base: check, start, live curve, stop, reload."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from glmstudio.training.runs import RunFolder
from tests.ui.program import Program, box, opened, points, running, wait_for_text
from tests.ui.small_workspace import DATASET, DEV_ROWS, TRAIN_ROWS, prepare

pytestmark = [pytest.mark.ui, pytest.mark.slow]

PLOT = "document.querySelector('#train-chart .js-plotly-plot')"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, Path]]:
    root = tmp_path_factory.mktemp("train")
    arguments = prepare(root, runs=2)
    with running(root, *arguments) as started:
        yield started, root


@pytest.fixture
def page(browser: Browser, program: tuple[Program, Path]) -> Iterator[Page]:
    with opened(browser, program[0]) as shown:
        open_train(shown)
        yield shown


def open_train(page: Page) -> None:
    page.locator("#tab-train-button").click()
    expect(box(page, "train-dataset")).to_have_value(DATASET)


def start_a_run(page: Page, epochs: str) -> None:
    # Until the base is there its usual values are still to come.
    expect(page.locator("#train-start")).to_be_enabled()
    box(page, "train-num-train-epochs").fill(epochs)
    page.locator("#train-start").click()
    expect(page.locator("#train-start")).to_be_disabled()
    expect(page.locator("#train-stop")).to_be_enabled()
    chosen = page.locator("#train-runs tr.chosen").filter(has_text="训练中")
    run = chosen.get_attribute("data-run")
    page.wait_for_function(f"run => {PLOT}?.layout?.uirevision === run", arg=run)


def stop_the_run(page: Page) -> None:
    page.locator("#train-stop").click()
    expect(page.locator("#train-status")).to_contain_text("已停止")


def wait_for_points(page: Page, count: int) -> None:
    page.wait_for_function(f"count => ({PLOT}?.data?.[0]?.x?.length ?? 0) >= count", arg=count)


def test_everything_wrong_is_said_at_once_and_start_is_off(page):
    start, check = page.locator("#train-start"), page.locator("#train-check")
    expect(start).to_be_enabled()
    expect(page.locator("#train-facts")).to_contain_text(f"训练 {TRAIN_ROWS} 条 · 验证 {DEV_ROWS} 条")
    box(page, "train-learning-rate").fill("5")
    box(page, "train-r").fill("")
    expect(check).to_contain_text("“LoRA 秩”没有数值")
    expect(check).to_contain_text("“学习率”为 5")
    expect(start).to_be_disabled()
    box(page, "train-learning-rate").fill("0.001")
    box(page, "train-r").fill("4")
    expect(start).to_be_enabled()
    expect(check).not_to_contain_text("学习率")


def test_a_preset_fills_the_fields_and_a_reload_keeps_them(page):
    page.locator("#train-preset label").nth(2).click()
    expect(box(page, "train-num-train-epochs")).to_have_value("6")
    box(page, "train-save-steps").fill("7")
    page.locator("#train-command-fold button").first.click()
    expect(box(page, "train-command")).to_have_value(re.compile(r"--num-train-epochs 6.*--save-steps 7"))
    page.locator("#train-written label").nth(1).click()
    expect(box(page, "train-yaml")).to_have_value(re.compile(r"num_train_epochs: 6.*save_steps: 7", re.DOTALL))
    expect(box(page, "train-command")).to_be_hidden()
    page.reload()
    open_train(page)
    expect(box(page, "train-save-steps")).to_have_value("7")
    expect(page.locator("#train-preset label.selected")).to_have_text("充分")


def test_a_run_ends_finished_with_its_whole_curve(page):
    start_a_run(page, "4")
    text = wait_for_text(page, "train-status", "完成")
    assert "32 / 32" in text
    expect(page.locator("#train-start")).to_be_enabled()
    wait_for_points(page, 32)
    assert page.evaluate(f"{PLOT}.data.map(trace => trace.name)") == ["训练损失", "验证损失"]


def test_a_run_is_seen_growing_after_a_reload_and_in_a_second_tab(browser, program, page):
    start_a_run(page, "500")
    wait_for_points(page, 5)
    seen = points(page)
    wait_for_points(page, seen + 5)
    page.reload()
    open_train(page)
    wait_for_points(page, seen)
    assert page.locator("#train-start").is_disabled()
    expect(page.locator("#train-check")).to_contain_text("正在训练")
    with opened(browser, program[0], language="en-US") as other:
        other.locator("#tab-train-button").click()
        wait_for_points(other, seen)
        expect(other.locator("#train-status")).to_contain_text("training")
        expect(other.locator("#train-start")).to_be_disabled()
    stop_the_run(page)


def test_runs_wait_behind_a_paused_one_change_places_and_start_by_themselves(page, program):
    queue, rows = page.locator("#train-queue"), page.locator("#train-runs tr:has(.run-order)")
    start_a_run(page, "500")
    active = page.locator("#train-runs tr.chosen").get_attribute("data-run")
    page.locator("#train-pause").click()
    expect(page.locator("#train-status")).to_contain_text("已暂停")
    expect(page.locator("#header")).to_contain_text("已暂停")
    expect(page.locator("#train-pause")).to_have_count(0)
    box(page, "train-num-train-epochs").fill("3")
    for count in (1, 2, 3):
        expect(queue).to_be_enabled()
        queue.click()
        expect(rows).to_have_count(count)
    expect(page.locator("#header")).to_contain_text("3 个排队")
    waiting = [rows.nth(place).get_attribute("data-run") for place in range(3)]
    steps = re.search(r"0 / (\d+)", rows.nth(0).inner_text())[1]
    rows.nth(1).locator("[data-order=up]").click()
    expect(rows.nth(0)).to_have_attribute("data-run", waiting[1])
    page.once("dialog", lambda dialog: dialog.accept())
    rows.nth(2).locator("[data-order=remove]").click()
    expect(rows).to_have_count(2)
    assert not (program[1] / "checkpoints" / waiting[2]).exists()
    assert page.locator("#train-runs tr.chosen").get_attribute("data-run") == active
    paused, step = RunFolder(program[1] / "checkpoints" / active), points(page)
    assert paused.read().step in paused.numbered()
    page.locator("#train-continue").click()
    wait_for_points(page, step + 5)
    expect(page.locator("#train-status")).to_contain_text("训练中")
    page.locator("#train-stop").click()
    expect(page.locator(f"#train-runs tr[data-run={active}]")).to_contain_text("已停止")
    for run in waiting[:2]:
        ended = page.locator(f"#train-runs tr[data-run={run}]")
        expect(ended).to_contain_text("完成")
        expect(ended).to_contain_text(f"{steps} / {steps}")
    ended = [RunFolder(program[1] / "checkpoints" / run).read().finished_at for run in waiting[:2]]
    assert ended[1] < ended[0]
    expect(queue).to_have_count(0)


def test_zoom_and_legend_stay_while_points_arrive_and_stop_keeps_an_adapter(page, program):
    start_a_run(page, "500")
    wait_for_points(page, 8)
    area = page.locator("#train-chart .nsewdrag").bounding_box()
    page.mouse.move(area["x"] + 0.2 * area["width"], area["y"] + 20)
    page.mouse.down()
    page.mouse.move(area["x"] + 0.6 * area["width"], area["y"] + 200, steps=4)
    # Points come while the button is held; they must not break the zoom off.
    page.wait_for_timeout(1500)
    page.mouse.up()
    page.wait_for_function(f"{PLOT}._fullLayout.xaxis.range[0] > 0")
    page.locator("#train-chart .legendtoggle").first.click()
    page.wait_for_function(f"{PLOT}._fullData[0].visible === 'legendonly'")
    zoom, seen = page.evaluate(f"{PLOT}._fullLayout.xaxis.range"), points(page)
    wait_for_points(page, seen + 10)
    assert page.evaluate(f"{PLOT}._fullLayout.xaxis.range") == zoom
    assert page.evaluate(f"{PLOT}._fullData[0].visible") == "legendonly"
    stop_the_run(page)
    expect(page.locator("#train-start")).to_be_enabled()
    folder = RunFolder(program[1] / "checkpoints" / page.locator("#train-runs tr.chosen").get_attribute("data-run"))
    assert folder.read().status == "stopped"
    assert "last" in folder.checkpoints()


def test_an_earlier_run_is_shown_by_a_click_and_laid_over_by_its_box(page):
    wait_for_points(page, 8)
    first, second = (page.locator(f"#train-runs tr[data-run=run-000{number}]") for number in (1, 2))
    second.locator(".run-pick").click()
    page.wait_for_function(f"{PLOT}.layout.uirevision === 'run-0002'")
    first.locator("input").click()
    page.wait_for_function(f"{PLOT}.data.length === 4")
    first.locator(".run-pick").click()
    expect(page.locator("#train-status")).to_contain_text("运行 1 · 完成")
    page.wait_for_function(f"{PLOT}.layout.uirevision === 'run-0001'")


def test_the_chart_follows_language_and_colours(browser, program):
    with opened(browser, program[0], language="en-US", color_scheme="dark") as page:
        page.locator("#tab-train-button").click()
        wait_for_points(page, 8)
        assert page.evaluate(f"{PLOT}.layout.xaxis.title.text") == "step"
        dark = page.evaluate(f"{PLOT}._fullLayout.font.color")
        assert not re.search("[\u4e00-\u9fff]", page.locator("#train-columns").inner_text())
        page.locator("#header [data-colours]").click()
        page.wait_for_function(f"dark => {PLOT}._fullLayout.font.color !== dark", arg=dark)


def test_a_restart_shows_the_last_run_and_why_one_failed(browser, tmp_path):
    arguments = prepare(tmp_path, runs=1)
    RunFolder(tmp_path / "checkpoints" / "run-0001").update(
        status="failed", error={"code": "a-code-of-old", "params": {"names": "<b>wq</b>"}}
    )
    with running(tmp_path, *arguments) as started, opened(browser, started) as page:
        page.locator("#tab-train-button").click()
        wait_for_points(page, 20)
        text = wait_for_text(page, "train-status", "失败")
        assert "a-code-of-old · names: <b>wq</b>" in text


def test_a_base_that_cannot_be_loaded_keeps_start_off_and_says_why(browser, tmp_path):
    prepare(tmp_path)
    with running(tmp_path, "--base", str(tmp_path / "nothing")) as started, opened(browser, started) as page:
        open_train(page)
        expect(page.locator("#train-check")).to_contain_text("nothing")
        expect(page.locator("#train-start")).to_be_disabled()
        expect(page.locator("#train-status")).to_contain_text("还没有训练过")


def test_the_tab_fits_one_screen(page):
    assert page.evaluate("document.documentElement.scrollHeight") <= 800
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
