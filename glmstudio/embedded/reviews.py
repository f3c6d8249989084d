"""Composes shoppers' reviews with the thing they are about and their mood. Knows no task, no prompt and no token."""

from random import Random
from typing import NamedTuple

from glmstudio.embedded import names, pools


class Review(NamedTuple):
    """A review, its topic (a key of TOPICS) and whether it praises."""

    text: str
    topic: str
    praises: bool


class Topic(NamedTuple):
    """Words for one kind of goods: what it is called, its parts, and clauses that praise, complain or tell."""

    things: tuple[str, ...]
    parts: tuple[str, ...]
    praise: tuple[str, ...]
    complaint: tuple[str, ...]
    story: tuple[str, ...]


def _topics() -> dict[str, Topic]:
    found = {}
    for name, lines in pools.sections("reviews").items():
        rows = [line.partition(" ")[::2] for line in lines]
        parts = [tuple(word for head, rest in rows if head == part for word in rest.split()) for part in Topic._fields]
        found[name] = Topic(*parts)
    return found


TOPICS: dict[str, Topic] = _topics()
_PRAISE = pools.sections("phrases")["review praise"]
_COMPLAINT = pools.sections("phrases")["review complaint"]
_DEGREES = (
    "很",
    "非常",
    "真的",
    "挺",
    "特别",
    "超级",
    "有点",
    "实在",
    "相当",
    "确实",
    "太",
    "比较",
    "感觉",
    "总的来说",
    "就是",
    "不过",
    "但是",
    "而且",
    "还有",
    "另外",
)
_ENDS = ("", "", "", "啊", "呢", "哦", "吧", "了", "哈", "呀", "的", "！", "！！", "~", "。。", "...", "，", "嘛", "唉")
_JOINS = ("，", "，", "，", "，", " ", "。", "！", "；", "、", "~", "...", "")


def write_review(r: Random, topic: str = "") -> Review:
    """A review of 1-9 clauses about a random topic (or about topic)."""
    topic = topic or r.choice(_NAMES)
    words = TOPICS[topic]
    praises = r.random() < 0.5
    clauses = [_clause(r, words, praises) for _ in range(r.choice((1, 1, 2, 2, 3, 3, 4, 5, 6, 9)))]
    if not any(telling for _, telling in clauses):
        clauses.insert(r.randint(0, len(clauses)), (_telling(r, words, praises), True))
    text = clauses[0][0]
    for clause, _ in clauses[1:]:
        text += r.choice(_JOINS) + clause
    return Review(text + r.choice(("", "", "。", "。", "！", "！！！", "~", "？")), topic, praises)


def _clause(r: Random, words: Topic, praises: bool) -> tuple[str, bool]:
    """(a clause, does it tell the topic?); now and then one of the other mood."""
    mood = praises if r.random() < 0.85 else not praises
    if r.random() < 0.4:
        return r.choice(("", "", r.choice(_DEGREES))) + r.choice(_PRAISE if mood else _COMPLAINT) + r.choice(
            _ENDS
        ), False
    return _telling(r, words, mood), True


def _telling(r: Random, words: Topic, mood: bool) -> str:
    kind = r.random()
    remark = r.choice(words.praise if mood else words.complaint)
    verdict = r.choice(_PRAISE if mood else _COMPLAINT)
    part, thing = r.choice(words.parts), r.choice(words.things)
    if kind < 0.35:
        return r.choice(("", "", "", "这", thing, part, r.choice(_DEGREES))) + remark + r.choice(_ENDS)
    if kind < 0.55:
        return (
            thing
            + r.choice(("", "", "的" + part))
            + r.choice(("", r.choice(_DEGREES)))
            + r.choice((remark, verdict))
            + r.choice(_ENDS)
        )
    if kind < 0.7:
        return (
            part + r.choice(("", "也", r.choice(_DEGREES))) + r.choice((verdict, remark, "不行" if not mood else "好"))
        )
    if kind < 0.9:
        return r.choice(words.story) + r.choice(_ENDS)
    return (
        r.choice(("买的", "收到", "这次的", "这个", "看中", "用了", "说说"))
        + thing
        + r.choice(("", str(r.randint(2, 30)) + "天", names.characters(r, 1, 1, 0)))
    )


_NAMES = [*TOPICS, "水果", "衣服", "洗浴", "平板", "酒店", "书籍", "电脑", "蒙牛"]
