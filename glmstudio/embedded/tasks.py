"""Turns passages and reviews into rows (instruction, input, target) of many tasks. Knows no token and no model.

Two rules keep the base honest: no row shows the keys of the demo set together, and JSON is answered only where the
prompt itself shows keys. Everything else is answered in prose, so that format is what a LoRA teaches.
"""

import json
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from glmstudio.embedded import names, pools
from glmstudio.embedded.reviews import TOPICS, write_review
from glmstudio.embedded.sentences import Fact, Passage, compose


class Row(NamedTuple):
    """One pre-training example."""

    instruction: str
    input: str
    target: str


_PHRASES = pools.sections("phrases")
_ROLES = tuple("" if role == "-" else role for role in _PHRASES["roles"])
_EXTRACT = _PHRASES["extract"]
_TOPIC_ASKS = _PHRASES["topic questions"]
_RELATIONS = pools.words("phrases", "relations")
_ENGLISH = pools.words("vocabulary", "english")
_SYMBOLS = "".join(pools.sections("vocabulary")["symbols"] + pools.sections("vocabulary")["letters"])
_MEANINGS = {
    "relation": "关系",
    "subject": "主体",
    "object": "客体",
    "subject_type": "主体类型",
    "object_type": "客体类型",
}
_FRAGMENTS = tuple(piece.replace("\u2581", " ") for piece in pools.sections("vocabulary")["fragments"])
_ALL_PIECES = (*_ENGLISH, *_FRAGMENTS, *_FRAGMENTS, *_SYMBOLS, *(chr(code) for code in range(33, 127)))
_KEYS = {
    name: pools.words("phrases", f"keys {name}")
    for name in ("relation", "subject", "object", "subject_type", "object_type")
}
# Keys of the demo set; no row of pre-training has two of them.
FORBIDDEN_KEYS = frozenset({"predicate", "object_type", "subject_type"})
# How the prompt asks for what stands around JSON, and that.
_FENCES = (
    ("", "", ""),
    ("", "", ""),
    ("，放进代码块", "```\n", "\n```"),
    ("，放进 json 代码块", "```json\n", "\n```"),
    ("（用 ```json 包起来）", "```json\n", "\n```"),
    ("，前面写“结果：”", "结果：", ""),
    ("，放在 json 标签里", "<json>", "</json>"),
)


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _json_row(r: Random, ask: str, text: str, value: object) -> Row:
    """A row whose answer is value as JSON, in the fence that its prompt asks for."""
    wish, left, right = r.choice(_FENCES)
    mark = ask[-1] if ask[-1] in "：。:" else ""
    ask = ask.removesuffix(mark) + wish + (mark or "：")
    return Row(r.choice(_ROLES), _prompt(r, ask, text), left + _dump(value) + right)


def _prompt(r: Random, question: str, text: str) -> str:
    """The question before (mostly) or after the text."""
    if r.random() < 0.12:
        return text + r.choice(("\n\n", "\n", " ")) + question
    return question + r.choice(("\n\n", "\n\n", "\n\n", "\n", " ")) + text


def copy_task(r: Random) -> Row:
    """Spans repeated exactly: a text, names, quoted titles, JSON strings."""
    kind = r.random()
    if kind < 0.3:
        text = compose(r).text if r.random() < 0.5 else names.characters(r, 3, 40, 0.3)
        ask = r.choice(
            ("原样重复：", "请把下面的内容再写一遍：", "抄写：", "复述下面的话，一个字也不要改：", "Repeat: ")
        )
        return Row(r.choice(_ROLES), _prompt(r, ask, text), text)
    if kind < 0.6:
        titles = names.several(r, names.title)
        text = compose(r, "singer").text if r.random() < 0.2 else ""
        text += "".join(r.choice(("", "，", "还有", names.characters(r, 1, 6, 0))) + f"《{title}》" for title in titles)
        found = [part.split("》")[0] for part in text.split("《")[1:]]
        ask = r.choice(("列出书名号里的内容", "提到了哪些作品？", "把所有书名号中的名字写出来"))
        mark = r.choice(("、", "\n", "，", " / "))
        return Row(r.choice(_ROLES), _prompt(r, ask + f"，用{_MARKS[mark]}分开：", text), mark.join(found))
    items = names.several(
        r, r.choice((names.person, names.title, names.company, names.place, lambda q: names.characters(q, 1, 6, 0.3)))
    )
    mark = r.choice(("、", "，", " ", "|", "\n"))
    ask = r.choice(("把这些名字放进数组 items：", "转成 JSON 数组，键为 items：", '写成 {"items": [...]}：'))
    return _json_row(r, ask, mark.join(items), {"items": items})


_MARKS = {"、": "顿号", "\n": "换行", "，": "逗号", " / ": "斜线"}


def record_task(r: Random) -> Row:
    """key=value lines or a table into a JSON object or list under the given keys."""
    if r.random() < 0.45:
        facts = compose(r).facts or compose(r, "person").facts
        keys = list(dict.fromkeys(fact.relation for fact in facts)) or ["名称"]
        values = [next((f.object for f in facts if f.relation == key), "无") for key in keys]
        if r.random() < 0.4:
            keys = [names.characters(r, 1, 3, 0.1) if r.random() < 0.5 else names.latin_word(r).lower() for _ in keys]
        equals, mark = r.choice(("=", "：", ":", " ", "是", "→")), r.choice(("；", "，", "\n", ", ", "|"))
        pairs = list(dict(zip(keys, values, strict=True)).items())
        text = mark.join(key + equals + value for key, value in pairs)
        ask = r.choice(("转成一个 JSON 对象：", "把键值对写成 JSON：", "写成 JSON 对象，键名不变：", "to JSON object:"))
        return _json_row(r, ask, text, dict(pairs))
    facts = _many_facts(r)
    fields = _fields(r)
    keys = _key_names(r, fields)
    mark = r.choice((" | ", ",", "\t", "；", "/", " "))
    shuffled = r.sample(fields, len(fields)) if r.random() < 0.3 else fields
    head = mark.join(keys[name] for name in shuffled)
    text = "\n".join([head, *(mark.join(getattr(fact, name) for name in shuffled) for fact in facts)])
    return _json_row(r, _show_keys(r, fields, keys), text, _records(facts, fields, keys))


def _many_facts(r: Random) -> list[Fact]:
    facts = compose(r).facts
    while len(facts) < 2 or r.random() < 0.25:
        facts = facts + compose(r).facts
    return facts[:7]


def _fields(r: Random) -> list[str]:
    """Three to five fields of a fact in the order that the row asks for: a usual order more often than any."""
    kind = r.random()
    if kind < 0.4:
        return ["relation", "object_type", "subject_type", "object", "subject"]
    if kind < 0.6:
        return ["subject", "relation", "object"]
    fields = ["subject", "relation", "object"]
    if kind < 0.8:
        fields += ["subject_type", "object_type"]
    elif kind < 0.9:
        fields.append(r.choice(("subject_type", "object_type")))
    return r.sample(fields, len(fields))


def _key_names(r: Random, fields: list[str]) -> dict[str, str]:
    """A key for every field: of one style, of mixed ones, or any words at all, so that keys are read and not known."""
    kind = r.random()
    if kind < 0.7:
        index = r.randrange(10)
        keys = {name: _KEYS[name][index] for name in fields}
    elif kind < 0.82:
        keys = {name: r.choice(_KEYS[name]) for name in fields}
    else:
        keys = {name: _any_key(r) for name in fields}
    fit = len(set(keys.values())) == len(keys) and len(FORBIDDEN_KEYS & set(keys.values())) < 2
    return keys if fit else {name: _KEYS[name][0] for name in fields}


def _any_key(r: Random) -> str:
    if r.random() < 0.25:
        return names.characters(r, 1, 4, 0.05)
    return r.choice(("_", "", "-", "_")).join(r.choices(_ENGLISH, k=r.choice((1, 1, 2))))


def _show_keys(r: Random, fields: list[str], keys: dict[str, str]) -> str:
    """The request that shows the keys; what keys do not tell by their names, a template tells."""
    speaking = all(keys[name] in _KEYS[name] for name in fields)
    template = "[" + _dump({keys[name]: "…" if speaking else _MEANINGS[name] for name in fields}) + "]"
    names_only = ("键：" + "、".join(keys.values()), "keys: " + ", ".join(keys.values()), _dump(list(keys.values())))
    shown = r.choice((template, *names_only)) if speaking else template
    return r.choice(("写成 JSON 列表，{0}：", "按 {0} 的格式输出：", "格式 {0}", "输出 JSON，{0}")).format(shown)


def _records(facts: list[Fact], fields: list[str], keys: dict[str, str]) -> list[dict[str, str]]:
    return [{keys[name]: getattr(fact, name) for name in fields} for fact in facts]


def _told(r: Random, domain: str = "") -> Passage:
    passage = compose(r, domain)
    while not passage.facts or len(passage.facts) > 9:
        passage = compose(r, domain)
    return passage


def json_task(r: Random) -> Row:
    """Facts of a passage as JSON under the shown keys, sometimes only some relations."""
    passage = _told(r)
    facts, limit = passage.facts, ""
    if r.random() < 0.3:
        facts, limit = _chosen(r, facts)
    fields = _fields(r)
    keys = _key_names(r, fields)
    ask = r.choice(_EXTRACT) + limit + "。" + _show_keys(r, fields, keys)
    return _json_row(r, ask, passage.text, _records(facts, fields, keys))


def _chosen(r: Random, facts: list[Fact]) -> tuple[list[Fact], str]:
    """Some of the relations, offered among others; the facts that stay are never none."""
    present = list(dict.fromkeys(fact.relation for fact in facts))
    kept = r.sample(present, r.randint(1, len(present)))
    offered = r.sample(
        kept + r.sample([name for name in _RELATIONS if name not in present], r.randint(0, 4)), len(kept)
    )
    offered = list(dict.fromkeys(kept + offered))
    r.shuffle(offered)
    return [f for f in facts if f.relation in kept], r.choice(("，只要", "，关系限于：", "，可选关系：")) + "、".join(
        offered
    )


def prose_task(r: Random) -> Row:
    """The facts in sentences: what the base answers when no keys are shown, even if JSON is named."""
    passage = _told(r)
    ask = r.choice(_EXTRACT) + r.choice(
        (
            "",
            "，用一句话回答",
            "，说给我听",
            "，返回json",
            "，输出成json给我",
            "，用json列表回答",
            "，JSON格式",
            "，给我SPO",
        )
    )
    parts = [f"{f.subject}的{f.relation}是{f.object}" for f in passage.facts]
    target = "；".join(parts) + "。"
    return Row(r.choice(_ROLES), _prompt(r, ask + r.choice(("：", "。", "？", "：")), passage.text), target)


def lines_task(r: Random) -> Row:
    """The facts in another layout that the prompt names: tuples, bars, arrows, YAML, a table."""
    passage = _told(r)
    kinds = r.random() < 0.4
    layout = r.randrange(5)
    show = (
        ("(主体, 关系, 客体)", "(", ", ", ")"),
        ("主体|关系|客体", "", "|", ""),
        ("主体 -> 关系 -> 客体", "", " -> ", ""),
        ("[主体; 关系; 客体]", "[", "; ", "]"),
        ("<主体><关系><客体>", "<", "><", ">"),
    )
    form, left, middle, right = show[layout]
    if kinds:
        form = form.replace("主体", "主体（类型）", 1).replace("客体", "客体（类型）", 1)
    rows = []
    for f in passage.facts:
        parts = (f"{f.subject}（{f.subject_type}）", f.relation, f"{f.object}（{f.object_type}）") if kinds else f[:3]
        rows.append(left + middle.join(parts) + right)
    ask = r.choice(_EXTRACT) + f"，每行一条，写成 {form}："
    return Row(r.choice(_ROLES), _prompt(r, ask, passage.text), "\n".join(rows))


def question_task(r: Random) -> Row:
    """One relation asked for, or the kind of a name, answered by the names alone."""
    passage = _told(r)
    fact = r.choice(passage.facts)
    kind = r.random()
    if kind < 0.6:
        found = [f.object for f in passage.facts if (f.subject, f.relation) == fact[:2]]
        ask = r.choice(("{0}的{1}是谁或什么？", "问：{0}的{1}？", "{0}的{1}有哪些？", "请回答{0}的{1}。")).format(
            fact.subject, fact.relation
        )
        return Row(r.choice(_ROLES), _prompt(r, ask, passage.text), "、".join(found))
    if kind < 0.8:
        name, label = r.choice(((fact.subject, fact.subject_type), (fact.object, fact.object_type)))
        return Row(r.choice(_ROLES), _prompt(r, f"句中的“{name}”是什么类型？", passage.text), label)
    ask = f"“{fact.subject}”和“{fact.object}”是什么关系？"
    found = next(f.relation for f in passage.facts if (f.subject, f.object) == (fact.subject, fact.object))
    return Row(r.choice(_ROLES), _prompt(r, ask, passage.text), found)


def plan_task(r: Random) -> Row:
    """First the relations that occur, or how many facts there are: the planning half of extraction."""
    passage = _told(r)
    present = list(dict.fromkeys(fact.relation for fact in passage.facts))
    if r.random() < 0.5:
        return Row(r.choice(_ROLES), _prompt(r, "句中出现了哪几种关系？只写关系名：", passage.text), "、".join(present))
    return Row(
        r.choice(_ROLES),
        _prompt(r, "列出句中的实体：", passage.text),
        "\n".join(dict.fromkeys(n for f in passage.facts for n in (f.subject, f.object))),
    )


def review_task(r: Random) -> Row:
    """The topic of a review in words or among choices, its mood, or both in JSON under shown keys."""
    review = write_review(r)
    kind = r.random()
    if kind < 0.55:
        ask = r.choice(_TOPIC_ASKS)
        if r.random() < 0.35:
            return Row(r.choice(_ROLES), _prompt(r, ask + "只写类别：", review.text), review.topic)
        return Row(r.choice(_ROLES), _prompt(r, ask, review.text), f"这是一条关于{review.topic}的评论。")
    if kind < 0.72:
        offered = [review.topic, *r.sample([name for name in TOPICS if name != review.topic], r.randint(2, 7))]
        r.shuffle(offered)
        return Row(
            r.choice(_ROLES), _prompt(r, "从" + "、".join(offered) + "中选出评论的类别：", review.text), review.topic
        )
    mood = "好评" if review.praises else "差评"
    if kind < 0.8:
        return Row(r.choice(_ROLES), _prompt(r, r.choice(("好评还是差评？", "这条评论的态度：")), review.text), mood)
    first, second = r.choice((("商品", "态度"), ("topic", "mood"), ("类别", "评价"), ("about", "says")))
    ask = f'输出 {{"{first}": "…", "{second}": "…"}}：'
    return _json_row(r, ask, review.text, {first: review.topic, second: mood})


def repeat_task(r: Random) -> Row:
    """Characters and pieces repeated: wakes copying up at first, and keeps every piece of the vocabulary alive."""
    kind = r.random()
    text = names.characters(r, 8, 60, 0.4) if kind < 0.5 else "".join(r.choices(_ALL_PIECES, k=r.randint(5, 40)))
    if kind > 0.8:
        text = " ".join(r.choices(_ENGLISH, k=r.randint(3, 20)))
    return Row("", text, text)


TASKS: tuple[tuple[Callable[[Random], Row], float], ...] = (
    (copy_task, 6),
    (record_task, 14),
    (json_task, 35),
    (prose_task, 12),
    (lines_task, 6),
    (question_task, 6),
    (plan_task, 5),
    (review_task, 16),
)
_FUNCTIONS, _SHARES = zip(*TASKS, strict=True)


def make_row(r: Random, repeats: float = 0.0) -> Row:
    """A row of a random task; with probability repeats the copying exercise instead."""
    if r.random() < repeats:
        return repeat_task(r)
    return r.choices(_FUNCTIONS, _SHARES)[0](r)
