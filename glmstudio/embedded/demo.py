"""Writes the demo dataset data/demo/{train,dev}.jsonl: python -m glmstudio.embedded.demo

Two tasks in Chinese, facts as a fenced JSON list and the topic of a review as a list, partly composed and partly
written by hand (text/demo*.txt). No name of a train row's facts that a dev row could learn by heart is in both: titles,
people, companies and sites of dev rows are new. Knows no model.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from glmstudio.data.example import join_context
from glmstudio.embedded import makers, names, pools
from glmstudio.embedded.domains import domains
from glmstudio.embedded.reviews import TOPICS
from glmstudio.embedded.sentences import Fact, write_clauses

SEED = 2024
SIZES = {"train": (240, 160), "dev": (48, 32)}  # rows with facts, rows with reviews
# Several wordings of everything: with one, the adapter learns that wording and fails on a person's own.
INSTRUCTIONS = (
    "你是一个细致的中文阅读助手，请只按要求的格式作答。",
    "请只按要求的格式作答。",
    "你现在是信息抽取专家，请严格按照要求回答。",
    "你是一个阅读理解助手，按照用户的要求输出结果。",
    "认真阅读输入的内容，只输出要求的结果。",
    "你擅长阅读中文文本，回答要简洁准确。",
    "现在你是数据标注员，请按格式给出答案。",
    "根据输入的内容完成任务，不要输出多余的话。",
)
FACT_QUESTIONS = (
    "找出句子里的三元组，用json回答：",
    "读完下面的句子，把其中的事实写成json：",
    "提取下面句子中的实体关系，以JSON列表输出：",
    "请从文中抽取三元组，用json格式返回结果。",
    "这段文字里有哪些SPO，返回json给我：",
    "列出句中的主体、关系和客体，json格式：",
    "请找出下面这句话里的全部三元组，以json返回：",
    "抽取句中的关系，只输出json：",
    "把下面文字里的SPO整理成JSON给我：",
    "这句话里有哪些关系？请用json列表作答。",
    "做一下信息抽取，结果写成JSON：",
    "请读句子，返回其中的三元组（JSON格式）：",
)
TOPIC_QUESTIONS = (
    "这句评论在评价什么？用列表形式回答：",
    "下面的评论是关于什么的，输出一个列表：",
    "给这条评论分类，答案用列表表示：",
    "指出评论对象，结果以列表返回。",
    "这条评论说的是哪类东西？请用列表作答：",
    "判断下面评论的对象，按列表形式返回：",
    "顾客在评价什么？答案写成列表。",
    "下面这段话的主题是什么，用列表回答：",
)
_COMMON_KINDS = frozenset({"国家", "地点", "Text", "Date", "目"})


def _title(r: Random) -> str:
    first, second = r.sample(names.pool("words"), 2)
    return r.choice((first + second, first + "的" + second, first + "之" + second, first + "与" + second, first))


def _person(r: Random) -> str:
    if r.random() < 0.12:
        return names.foreign_name(r)
    return r.choice(names.pool("surnames")) + "".join(r.sample(names.pool("given"), r.choice((1, 2, 2))))


def _company(r: Random) -> str:
    brand = "".join(r.sample(names.pool("given"), 2))
    return r.choice(names.pool("cities")) + brand + r.choice(names.pool("company_kinds")) + "有限公司"


def _site(r: Random) -> str:
    return r.choice(names.pool("words")) + r.choice(names.pool("sites"))


def _press(r: Random) -> str:
    return r.choice(names.pool("cities")) + r.choice(names.pool("press_ends"))


def _school(r: Random) -> str:
    return r.choice(names.pool("cities")) + r.choice(names.pool("school_kinds")) + r.choice(("大学", "学院"))


def _creature(r: Random) -> str:
    return "".join(r.sample(names.pool("given"), 2)) + r.choice(names.pool("creature_ends"))


MAKERS = makers.MAKERS | {
    "title": _title,
    "person": _person,
    "company": _company,
    "site": _site,
    "press": _press,
    "school": _school,
    "creature": _creature,
    "city": names.picker(names.pool("cities")),
    "town": names.picker(names.pool("cities")),
    "order": lambda r: r.choice(names.pool("orders")) + "目",
    "word": names.picker(names.pool("words")),
    "day": lambda r: f"{r.randint(1950, 2022)}年{r.randint(1, 12)}月{r.randint(1, 28)}日",
    "year": lambda r: f"{r.randint(1980, 2022)}年",
    "month": lambda r: str(r.randint(3, 10)),
    "number": lambda r: str(r.randint(2, 60)),
    "pages": lambda r: str(r.randint(120, 620)),
}


def fact_target(facts: list[Fact]) -> str:
    """The fenced JSON list that the first task asks for."""
    keys = ("predicate", "object_type", "subject_type", "object", "subject")
    rows = [
        dict(zip(keys, (f.relation, f.object_type, f.subject_type, f.object, f.subject), strict=True)) for f in facts
    ]
    return "```json\n" + json.dumps(rows, ensure_ascii=False) + "\n```"


def _composed(r: Random) -> Iterator[tuple[str, list[Fact]]]:
    rows = domains("demo")
    while True:
        name = r.choices(list(rows), [row.weight for row in rows.values()])[0]
        text, facts = write_clauses(r, "demo", name, MAKERS[rows[name].subject](r), MAKERS, 2)
        if facts and len(facts) <= 5:
            yield text, facts


def hand_written_facts() -> list[tuple[str, list[Fact]]]:
    """The sentences of text/demo_by_hand.txt; the kinds of a relation come from text/demo.txt."""
    kinds = {name: value[1:] for row in domains("demo").values() for name, value in row.relations.items()}
    found: list[tuple[str, list[Fact]]] = []
    for line in pools.sections("demo_by_hand")["facts"]:
        if line.startswith("= "):
            subject, relation, value = line[2:].split(" ")
            found[-1][1].append(Fact(subject, relation, value, kinds[relation][1], kinds[relation][0]))
        else:
            found.append((line, []))
    return found


def _own_names(facts: list[Fact]) -> set[str]:
    return {f.subject for f in facts} | {f.object for f in facts if f.object_type not in _COMMON_KINDS}


def _fact_rows(r: Random) -> dict[str, list[tuple[str, list[Fact]]]]:
    rows = {"train": hand_written_facts(), "dev": []}
    seen = set().union(*(_own_names(facts) for _, facts in rows["train"]))
    source = _composed(r)
    for split in ("train", "dev"):
        own: set[str] = set()
        while len(rows[split]) < SIZES[split][0]:
            text, facts = next(source)
            if split == "train" or not _own_names(facts) & seen:
                rows[split].append((text, facts))
                own |= _own_names(facts)
        seen |= own
    return rows


def _review(r: Random, topic: str) -> str:
    """Two to four clauses about a topic in plain punctuation."""
    words = TOPICS[topic]
    told = r.choice((words.praise, words.complaint))
    clauses = [r.choice(words.things) + r.choice(told), *r.sample(told, r.randint(0, 2))]
    if r.random() < 0.6:
        clauses.insert(r.randint(0, 1), r.choice(words.story))
    return "，".join(clauses) + r.choice(("", "。", "！"))


def _review_rows(r: Random) -> dict[str, list[tuple[str, str]]]:
    by_hand = [
        (text, topic) for topic, lines in pools.sections("demo_by_hand").items() if topic != "facts" for text in lines
    ]
    r.shuffle(by_hand)
    kept = SIZES["dev"][1] // 2
    rows = {"train": by_hand[kept:], "dev": by_hand[:kept]}
    topics = sorted({topic for _, topic in by_hand})
    seen: set[str] = set()
    for split in ("train", "dev"):
        while len(rows[split]) < SIZES[split][1]:
            topic = topics[len(rows[split]) % len(topics)]
            text = _review(r, topic)
            if text not in seen:
                rows[split].append((text, topic))
                seen.add(text)
    return rows


def demo_rows() -> dict[str, list[dict[str, str]]]:
    """Rows {"context", "target"} of both splits, always the same."""
    r = Random(SEED)
    facts, reviews = _fact_rows(r), _review_rows(r)
    rows: dict[str, list[dict[str, str]]] = {}
    for split in SIZES:
        pairs = [(r.choice(FACT_QUESTIONS) + "\n\n" + text, fact_target(found)) for text, found in facts[split]]
        pairs += [
            (r.choice(TOPIC_QUESTIONS) + "\n\n" + text, json.dumps([topic], ensure_ascii=False))
            for text, topic in reviews[split]
        ]
        r.shuffle(pairs)
        rows[split] = [
            {"context": join_context(r.choice(INSTRUCTIONS), text), "target": target} for text, target in pairs
        ]
    return rows


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m glmstudio.embedded.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("data/demo"))
    output = parser.parse_args(arguments).output
    output.mkdir(parents=True, exist_ok=True)
    for split, rows in demo_rows().items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (output / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{output / split}.jsonl: {len(rows)} rows")


if __name__ == "__main__":
    main()
