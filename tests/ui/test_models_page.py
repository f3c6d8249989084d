"""The Models tab in a browser, on the real program: bases here and from a hub, switching, what is wrong, exporting."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.fake_hub import fake_hub
from tests.tiny_families import native_folder
from tests.ui.program import Program, box, opened, running
from tests.ui.small_workspace import prepare

pytestmark = [pytest.mark.ui, pytest.mark.slow]

CHATGLM2 = Path(__file__).resolve().parents[1] / "golden" / "chatglm2"
HUB_ID = "somebody/tiny-llama"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    root = tmp_path_factory.mktemp("models")
    arguments = prepare(root, runs=1)
    native_folder("glm", root / "checkpoints" / "tiny-glm")
    (root / "checkpoints" / "broken").mkdir()
    for name in ("config.json", "pytorch_model.bin.index.json"):
        shutil.copy(CHATGLM2 / name, root / "checkpoints" / "broken")
    llama = native_folder("llama", root / "llama")
    with fake_hub() as hub:
        hub.models[HUB_ID] = {path.name: path.read_bytes() for path in llama.iterdir()}
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(root / "hub"), "HF_HUB_OFFLINE": "0"}
        with running(root, *arguments, environment=environment) as started:
            yield started


@pytest.fixture
def page(browser: Browser, program: Program) -> Iterator[Page]:
    with opened(browser, program) as shown:
        shown.locator("#tab-models-button").click()
        expect(shown.locator("#models-bases tr[data-source]").first).to_be_visible()
        yield shown


def row(page: Page, name: str):
    return page.locator(f"#models-bases tr[data-source$='{name}']")


def use(page: Page, source: str) -> None:
    box(page, "models-source").fill(source)
    expect(page.locator("#models-use")).to_be_enabled()
    page.locator("#models-use").click()


def test_an_adapter_goes_out_merged_and_checked(page, program):
    """First, while the base that the run was trained on is named as a folder."""
    expect(page.locator("#models-export-go")).to_be_enabled()
    box(page, "models-kind").click()
    page.get_by_role("option").filter(has_text="适配器").click()
    page.locator("#models-export-go").click()
    state = page.locator("#models-export-state")
    expect(state).to_contain_text("run-0001-best-adapter")
    assert (program.root / "checkpoints" / "exports" / "run-0001-best-adapter" / "README.md").is_file()


def test_the_list_says_what_is_here_and_what_is_damaged(page):
    expect(row(page, "embedded")).to_contain_text("ChatGLM-6B")
    expect(row(page, "broken")).to_contain_text("不完整")
    row(page, "tiny-glm").click()
    found = page.locator("#models-found")
    expect(found).to_contain_text("原生")
    expect(found).to_contain_text("可以用作基座")
    expect(box(page, "models-source")).to_have_value(re.compile("tiny-glm$"))


def test_a_damaged_base_is_refused_and_the_resident_one_stays(page):
    row(page, "broken").click()
    expect(page.locator("#models-found")).to_contain_text("pytorch_model-00001-of-00002.bin")
    page.locator("#models-use").click()
    expect(page.locator(".toast-wrap")).to_contain_text("pytorch_model-00001-of-00002.bin")
    expect(page.locator("#header .glm-base")).to_contain_text("tiny")
    expect(page.locator("#header")).to_contain_text("就绪")


def test_another_base_takes_the_place_of_the_resident_one(page):
    row(page, "tiny-glm").click()
    expect(box(page, "models-source")).to_have_value(re.compile("tiny-glm$"))
    page.locator("#models-quantization label").filter(has_text="全精度").click()
    page.locator("#models-use").click()
    expect(page.locator("#header")).to_contain_text("tiny-glm")
    expect(page.locator("#header")).to_contain_text("就绪")
    expect(page.locator("#models-state")).to_contain_text("tiny-glm 已载入")
    page.locator("#models-release").click()
    expect(page.locator("#models-state")).to_contain_text("tiny-glm 未加载")
    expect(page.locator("#header")).to_contain_text("未加载")
    page.locator("#tab-train-button").click()
    expect(page.locator("#train-check")).to_contain_text("点“开始训练”会先加载它")
    expect(page.locator("#train-start")).to_be_enabled()
    expect(page.locator("#header")).to_contain_text("未加载")
    page.locator("#tab-compare-button").click()
    box(page, "compare-input").fill("Paris is red.")
    box(page, "compare-max-new-tokens").fill("4")
    page.locator("#compare-generate").click()
    expect(page.locator("#compare-base-head")).to_contain_text("词元")
    expect(page.locator("#header")).to_contain_text("就绪")


def test_a_base_from_a_hub_is_downloaded_and_loaded(page, program):
    use(page, HUB_ID)
    expect(page.locator("#header")).to_contain_text("tiny-llama")
    expect(page.locator("#models-state")).to_contain_text(f"{HUB_ID} 已载入")
    expect(row(page, HUB_ID)).to_be_visible()
    assert list((program.root / "hub").rglob("model.safetensors"))


def test_a_hub_id_that_is_none_is_told_and_the_base_stays(page):
    expect(page.locator("#header")).to_contain_text("就绪")
    use(page, "nobody/nothing")
    expect(page.locator("#models-state")).to_contain_text("nobody/nothing")
    expect(page.locator("#models-state .glm-bad")).to_be_visible()
    expect(page.locator("#header")).to_contain_text("就绪")


def test_the_tab_fits_one_screen_in_both_languages(browser, program):
    for language in ("zh-CN", "en-US"):
        with opened(browser, program, language=language) as shown:
            shown.locator("#tab-models-button").click()
            row(shown, "tiny-glm").click()
            expect(shown.locator("#models-found dl")).to_be_visible()
            assert shown.evaluate("document.documentElement.scrollHeight") <= 800
            assert shown.evaluate("document.documentElement.scrollWidth") <= 1280
            for place in ("#models-bases", "#models-found"):
                hidden = f"(e => e.scrollWidth - e.clientWidth)(document.querySelector('{place}'))"
                assert shown.evaluate(hidden) <= 0, place
