"""What holds for every tab, on the real program: assistive technology, both schemes, a phone to a wide screen, the
address that a reload and Back follow; nothing that a name holds becomes markup."""

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.ui.program import PATIENCE, Program, box, opened, running
from tests.ui.small_workspace import DATASET, DEV_ROWS, prepare

pytestmark = [pytest.mark.ui, pytest.mark.slow]

TABS = ("annotate", "train", "compare", "evaluate", "models")
# What a person comes for in each tab.
GOALS = {
    "annotate": ("annotate-save", "annotate-target", "annotate-import"),
    "train": ("train-start", "train-chart"),
    "compare": ("compare-generate", "compare-feedback", "compare-tuned"),
    "evaluate": ("evaluate-start", "evaluate-rows"),
    "models": ("models-use", "models-export-go"),
}
# The buttons that a look enables once the tab is open.
STATED = {
    "train": ("train-start",),
    "models": ("models-use", "models-release", "models-export-go"),
}
MARKUP = "<img src=x onerror=document.title='taken'>"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    root = tmp_path_factory.mktemp("whole")
    # The folder of a base may be called anything.
    folder = root / MARKUP.replace("/", "")
    arguments = prepare(root, runs=1)
    (root / "tiny").rename(folder)
    with running(root, arguments[0], str(folder)) as started:
        yield started


def show(page: Page, tab: str) -> None:
    page.locator(f"#tab-{tab}-button").click()
    expect(page.locator(f"#{GOALS[tab][0]}")).to_be_visible()


def settled(page: Page, tab: str) -> None:
    """The buttons of a tab that was just opened have their state, and have faded into its colour."""
    for button in STATED.get(tab, ()):
        expect(page.locator(f"#{button}")).to_be_enabled()
    page.wait_for_function("() => document.getAnimations().every((item) => !(item instanceof CSSTransition))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_tab_shuts_anybody_out(browser: Browser, program: Program, scheme: str):
    with opened(browser, program, color_scheme=scheme) as page:
        expect(page.locator("#annotate-target-gauge")).to_contain_text("词元")
        expect(page.locator(".glm-ready")).to_be_visible()
        wrong = []
        for tab in TABS:
            show(page, tab)
            settled(page, tab)
            found = Axe().run(page).response["violations"]
            wrong += [
                (tab, item["id"], node["html"][:200])
                for item in found
                if item["impact"] in ("serious", "critical")
                for node in item["nodes"]
            ]
        assert wrong == []
        assert page.title() != "taken"


@pytest.mark.parametrize("width", [390, 768, 1024, 1920])
def test_everything_can_be_reached_at_every_width(browser: Browser, program: Program, width: int):
    with opened(browser, program) as page:
        page.set_viewport_size({"width": width, "height": 800})
        for tab in TABS:
            show(page, tab)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
            for goal in GOALS[tab]:
                place = page.locator(f"#{goal}")
                place.scroll_into_view_if_needed()
                expect(place).to_be_in_viewport()
                seen = place.bounding_box()
                assert seen["x"] >= 0, goal
                assert seen["x"] + seen["width"] <= width + 1, goal
        show(page, "annotate")
        assert page.locator("#annotate-heading b").bounding_box()["height"] < 45


def test_a_reload_and_back_find_the_tab_the_filters_and_the_row(browser: Browser, program: Program):
    with opened(browser, program) as page:
        box(page, "annotate-filter-split").click()
        page.get_by_role("option", name="验证", exact=True).click()
        rows = page.locator("#annotate-table tr[data-id]")
        expect(rows).to_have_count(DEV_ROWS)
        box(page, "annotate-search").fill("Oslo")
        expect(rows).to_have_count(1)
        number = rows.first.get_attribute("data-id")
        rows.first.click()
        expect(page.locator("#annotate-heading")).to_contain_text(number)
        show(page, "evaluate")
        expect(box(page, "evaluate-dataset")).to_have_value(DATASET)
        page.reload()
        expect(page.locator("#evaluate-start")).to_be_visible()
        page.go_back()
        expect(page.locator("#annotate-save")).to_be_visible()
        expect(rows).to_have_count(1)
        expect(box(page, "annotate-search")).to_have_value("Oslo")
        expect(box(page, "annotate-filter-split")).to_have_value("验证")
        expect(page.locator("#annotate-heading")).to_contain_text(number)


def test_a_reload_keeps_the_answers_of_a_comparison(browser: Browser, program: Program):
    with opened(browser, program) as page:
        show(page, "compare")
        page.locator("#compare-dev-row").click()
        box(page, "compare-max-new-tokens").fill("12")
        expect(page.locator("#compare-generate")).to_be_enabled()
        page.locator("#compare-generate").click()
        expect(page.locator("#compare-right")).to_be_enabled()
        tuned = page.locator("#compare-tuned .answer")
        answer, head = tuned.inner_text(), page.locator("#compare-tuned-head").inner_text()
        page.wait_for_function("sessionStorage.getItem('glmstudio-answers')")
        page.reload()
        expect(page.locator("#compare-tuned-head")).to_have_text(head)
        expect(tuned).to_have_text(answer)
        expect(box(page, "compare-correct")).to_have_value(answer)
        expect(page.locator("#compare-right")).to_be_enabled()


def test_names_are_no_markup_anywhere(browser: Browser, program: Program):
    with opened(browser, program) as page:
        show(page, "models")
        box(page, "models-source").fill(f"/nowhere/{MARKUP}")
        page.locator("#models-look").click()
        expect(page.locator("#models-found")).to_contain_text(re.compile("nowhere"))
        for tab in TABS:
            show(page, tab)
        assert page.locator("img[src=x]").count() == 0
        assert page.title() != "taken"


# Counts who asks to be called at the next frame.
COUNTED = """
window.asked = 0;
const native = window.requestAnimationFrame;
window.nextFrame = (call) => native(call);
window.requestAnimationFrame = (call) => { window.asked += 1; return native(call); };
"""
# How often in thirty frames somebody did, once what the page has begun is over.
ASKED = """async () => {
  let asked = 30;
  for (let turn = 0; turn < 20 && asked >= 10; turn += 1) {
    const before = window.asked;
    for (let frame = 0; frame < 30; frame += 1) await new Promise(window.nextFrame);
    asked = window.asked - before;
  }
  return asked;
}"""


def test_a_page_that_nobody_touches_draws_no_frames(browser: Browser, program: Program):
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.add_init_script(COUNTED)
    page.goto(program.url)
    expect(page.locator("#annotate-table tr[data-id]").first).to_be_visible()
    expect(page.locator(".glm-ready")).to_be_visible()
    assert page.evaluate(ASKED) < 10
    context.close()
