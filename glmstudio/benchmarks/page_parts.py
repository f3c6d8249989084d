"""What looking costs, part by part: pages that nobody touches, pages beside a run, the list, the check. Each part gives
figures of the real program in a real browser. Knows the page's `elem_id`s."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glmstudio.benchmarks.page_program import TABS, Program, open_tab, opened, renderers, shares, spent
from glmstudio.benchmarks.page_workspace import SMALL, SMALL_TRAIN, add_long_row
from glmstudio.data.bench import RARE
from glmstudio.errors import StudioError
from glmstudio.training.metrics import MetricRecord, read_from
from glmstudio.training.runs import RunFolder
from glmstudio.workspace import Workspace

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Of the run that is watched: it goes on for longer than anybody measures.
EPOCHS = 1000
# Milliseconds from an act until what it changes is drawn: the first row of the list is another one, or an element's
# text is.
_DRAWN = """async ([act, watched, argument]) => {
  const acts = {
    click: (selector) => document.querySelector(selector).click(),
    type: ([selector, text]) => {
      const field = document.querySelector(selector);
      field.value = text;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    },
  };
  const element = document.querySelector(watched);
  const now = () => (element.querySelector("tr[data-id]") ?? element).innerText;
  const before = now(), begin = performance.now();
  await new Promise((done) => {
    const look = () => now() !== before && (observer.disconnect(), done());
    const observer = new MutationObserver(look);
    observer.observe(element, { childList: true, characterData: true, subtree: true });
    acts[act](argument);
  });
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - begin;
}"""


@dataclass(frozen=True)
class Figure:
    """One number: a share of a core, a ratio, or seconds of the wall, with `cpu` seconds of server and page where
    that is known. `goal` is the most (of steps per second the least) that it is to be."""

    part: str
    what: str
    value: float
    unit: str
    goal: float | None = None
    cpu: float | None = None


@dataclass(frozen=True)
class Bench:
    """Where and how a part measures: `pages` are numbers of open pages, `seconds` the length of a window."""

    program: Program
    browser: "Browser"
    workspace: Workspace
    pages: tuple[int, ...]
    seconds: float
    rounds: int
    tell: Callable[[str], None]

    def settle(self) -> None:
        """Waits until what a page has begun is over."""
        time.sleep(self.seconds / 3)


def idle(bench: Bench) -> Iterator[Figure]:
    """Nothing runs and nobody touches anything."""
    for count in bench.pages:
        bench.tell(f"idle, {count} pages")
        with opened(bench.browser, bench.program, count, "train") as pages:
            # Train comes first: what its check takes is over then.
            for tab in reversed(TABS) if count else ("",):
                for page in pages:
                    open_tab(page, tab)
                bench.settle()
                server, drawn = shares([[bench.program.process], renderers()], bench.seconds)
                where = f"{count} on {tab}" if count else "no page"
                yield Figure("idle", f"server, {where}", server, "share", 0.03)
                if count:
                    yield Figure("idle", f"each page, {where}", drawn / count, "share", 0.03)


def train(bench: Bench) -> Iterator[Figure]:
    """One run of many small steps, in turns without a page and with one on Train whose curve grows. What the server
    does for the page is what it takes more than its steps take without one."""
    bench.tell("a run begins")
    with opened(bench.browser, bench.program, tab="train") as (page,):
        run = _started(page)
    folder = RunFolder(bench.workspace.run_folder(run))
    alone: list[_Window] = []
    watched: list[_Window] = []
    for number in range(bench.rounds):
        bench.tell(f"the run without a page and with one, {number + 1} of {bench.rounds}")
        bench.settle()
        alone.append(_window(bench, folder))
        with opened(bench.browser, bench.program) as (page,):
            page.locator("#tab-train-button").click()
            page.wait_for_function("document.querySelector('#train-chart .js-plotly-plot')?.data?.[0]?.x?.length > 1")
            bench.settle()
            watched.append(_window(bench, folder))
    with opened(bench.browser, bench.program) as (page,):
        page.locator("#tab-train-button").click()
        page.locator("#train-stop:enabled").click()
        page.locator("#train-start:enabled").wait_for()
    pace = statistics.median(window.pace for window in alone)
    step = statistics.median(window.server / window.pace for window in alone)
    yield Figure("train", "page, the curve grows", statistics.median(each.page for each in watched), "share", 0.1)
    beside = statistics.median(window.server - window.pace * step for window in watched)
    yield Figure("train", "server beside the steps", beside, "share")
    yield Figure("train", "steps/s without a page", pace, "steps/s")
    with_page = statistics.median(window.pace for window in watched)
    yield Figure("train", "steps/s with a page", with_page, "steps/s", 0.9 * pace)
    pairs = zip(watched, alone, strict=True)
    yield Figure("train", "with a page, of without", statistics.median(a.pace / b.pace for a, b in pairs), "ratio", 0.9)


@dataclass(frozen=True)
class _Window:
    """`pace` in steps per second, `server` and `page` in cores."""

    pace: float
    server: float
    page: float


def _window(bench: Bench, folder: RunFolder) -> _Window:
    begin = time.time()
    server, page = shares([[bench.program.process], renderers()], bench.seconds)
    records, _ = read_from(folder.metrics_path)
    inside = [record for record in records if record.kind == "train" and record.time >= begin]
    return _Window(_pace(inside), server, page)


def _pace(records: list[MetricRecord]) -> float:
    if len(records) < 2:
        raise StudioError("bench-failed", way="train", reason=f"{len(records)} steps in a window")
    first, last = records[0], records[-1]
    return (last.step - first.step) / (last.time - first.time)


def _started(page: "Page") -> str:
    """Begins a run that outlasts the measurement and gives its id."""
    page.locator("#train-dataset input").first.fill(SMALL)
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    wanted = {"num-train-epochs": str(EPOCHS), "per-device-train-batch-size": "1", "eval-steps": "1000000",
              "save-steps": "1000000"}  # fmt: skip
    for name, value in wanted.items():
        page.locator(f"#train-{name} input").first.fill(value)
    # The longest of all runs here: the check has heard of the fields.
    page.locator("#train-facts", has_text=f"{EPOCHS * SMALL_TRAIN:,}").wait_for()
    page.locator("#train-start:enabled").click()
    chosen = page.locator("#train-runs tr.chosen .run-running")
    chosen.wait_for()
    return page.locator("#train-runs tr.chosen").get_attribute("data-run")


def rows(bench: Bench) -> Iterator[Figure]:
    """The list of Annotate: leafing, and a search, without and with a row of 5 MB as the first one."""
    with opened(bench.browser, bench.program) as (page,):
        bench.settle()
        yield from _list_figures(bench, page, "")
        bench.tell("a row of 5 MB")
        _leafed(bench, page, 1)
        add_long_row(bench.workspace)
        yield _median("list", "a row of 5 MB for the first time", [_leafed(bench, page, 0)], 0.3)
        yield from _list_figures(bench, page, " with a row of 5 MB")


def _list_figures(bench: Bench, page: "Page", with_what: str) -> Iterator[Figure]:
    bench.tell(f"the list{with_what}")
    leafed = [_leafed(bench, page, place) for _ in range(bench.rounds) for place in (1, 0)]
    yield _median("list", f"a page{with_what}", leafed, 0.3)
    field = "#annotate-search textarea, #annotate-search input"
    texts = [text for _ in range(bench.rounds) for text in (RARE, "")]
    found = [_timed(bench, page, "type", "#annotate-table", [field, text]) for text in texts]
    yield _median("list", f"a search{with_what}", found, 0.3)


def _leafed(bench: Bench, page: "Page", place: int) -> tuple[float, float]:
    return _timed(bench, page, "click", "#annotate-table", f'#annotate-pager button[data-page="{place}"]')


def check(bench: Bench) -> Iterator[Figure]:
    """The check of the largest dataset: when the first page of the program opens Train, and after a change of a field
    until facts or findings have changed."""
    bench.tell("the first check")
    begin, before = time.perf_counter(), spent([bench.program.process])
    with opened(bench.browser, bench.program, tab="train") as (page,):
        wall = time.perf_counter() - begin
        yield Figure(
            "check", "a page opens until all is checked", wall, "s", 10, spent([bench.program.process]) - before
        )
        for name, watched, values in (
            ("num-train-epochs", "#train-facts", ("3", "4", "5")),
            ("max-source-length", "#train-check", ("16", "400", "16")),
        ):
            bench.tell(f"the check after a change of {name}")
            times = []
            for value in values:
                open_tab(page, "train")
                bench.settle()
                times.append(_timed(bench, page, "type", watched, [f"#train-{name} input", value]))
            yield _median("check", f"after a change of {name}", times, 1)


def _timed(bench: Bench, page: "Page", act: str, watched: str, argument: object) -> tuple[float, float]:
    """(seconds until it is drawn, processor seconds of server and pages meanwhile)."""
    processes = [bench.program.process, *renderers()]
    before = spent(processes)
    milliseconds = page.evaluate(_DRAWN, [act, watched, argument])
    return milliseconds / 1000, spent(processes) - before


def _median(part: str, what: str, times: list[tuple[float, float]], goal: float) -> Figure:
    walls, processors = zip(*times, strict=True)
    return Figure(part, what, statistics.median(walls), "s", goal, statistics.median(processors))
