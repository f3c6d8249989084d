"""Times import, pages, searches, a save and an export of a large dataset, in a temporary folder. Knows no page."""

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from glmstudio.data import formats
from glmstudio.data.example import Example
from glmstudio.data.reading.reader import read
from glmstudio.data.row_reader import Query
from glmstudio.data.store import Store

REPEATS = 5
RARE = "稀有的唯一一行"
_PARTS = (
    "这部小说连载于一家中文网站",
    "作者是一位年轻的编剧",
    "由多位演员主演的电影",
    "出版社在北京发行了新版",
    "The album was released in 2004",
    "导演和主演第一次合作",
    "酒店的早餐不错但是位置偏远",
    "屏幕清晰而且电池耐用",
)
_SEARCHES = {
    "one_character": "的",
    "two_characters": "主演",
    "longer": "导演和主演第一次",
    "ascii_other_case": "ALBUM was RELEASED",
    "one_row_only": RARE,
    "nothing": "哪里都没有的话",
}


def bench_store(rows: int) -> dict[str, object]:
    """Seconds of the import and the export, milliseconds of everything else: median and worst wall time of `REPEATS`
    calls, and the median processor time."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.jsonl"
        formats.write(source, made_up(rows), "context-target")
        store = Store(f"sqlite:///{Path(folder) / 'rows.sqlite'}")
        try:
            good = (row for row in read(source, dataset="bench") if isinstance(row, Example))
            added: list[int] = []
            imported = _spent(lambda: added.append(store.import_rows(good, dataset="bench", file=source.name).rows))
            calls = _timed_calls(store, rows)
            everything = store.iterate(Query(dataset="bench"))
            exported = _spent(lambda: formats.write(Path(folder) / "out.jsonl", everything, "context-target"))
        finally:
            store.close()
        return {
            "rows": added[0],
            "file_megabytes": round(source.stat().st_size / 1e6, 1),
            "seconds": {
                name: {"wall": round(wall, 2), "processor": round(processor, 2)}
                for name, (wall, processor) in (("import", imported), ("export", exported))
            },
            "milliseconds": calls,
        }


def _spent(call: Callable[[], object]) -> tuple[float, float]:
    """(wall, processor) seconds of a call. The second is what it takes on a machine with nothing else to do."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def _timed_calls(store: Store, rows: int) -> dict[str, dict[str, float]]:
    row = store.page(Query(), limit=1).rows[0]
    calls: dict[str, Callable[[], object]] = {
        "first_page": lambda: store.page(Query(dataset="bench")),
        "last_page": lambda: store.page(Query(dataset="bench"), offset=rows - 20),
        "any_dataset": lambda: store.page(Query()),
        "datasets": store.datasets,
        "save": lambda: store.save(replace(row, annotator="bench")),
    }
    for name, text in _SEARCHES.items():
        calls[f"search_{name}"] = lambda text=text: store.page(Query(dataset="bench", search=text))
    return {name: _milliseconds(call) for name, call in calls.items()}


def _milliseconds(call: Callable[[], object]) -> dict[str, float]:
    walls, processors = zip(*(_spent(call) for _ in range(REPEATS)), strict=True)
    times = {"median": statistics.median(walls), "worst": max(walls), "processor": statistics.median(processors)}
    return {name: round(seconds * 1000, 1) for name, seconds in times.items()}


def made_up(rows: int) -> Iterator[Example]:
    """Rows as long as real extraction rows: about 140 characters of prompt, 125 of target, one of them with `RARE`."""
    dice = random.Random(0)
    for number in range(rows):
        parts = [dice.choice(_PARTS) for _ in range(8)]
        text = f"{'，'.join(parts[:7])}。{RARE if number == rows // 2 else number}"
        triples = [{"subject": parts[0], "predicate": "主演", "object": part} for part in parts[6:]]
        target = f"```json\n{json.dumps(triples, ensure_ascii=False)}\n```"
        yield Example("找到句子中的三元组信息，用列表回答。", text, target)
