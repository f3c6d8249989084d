"""The generator of pre-training text: its facts are true to the text, and it never shows what the demo set asks for."""

import json
import re
from random import Random

import pytest

from glmstudio.embedded import tasks
from glmstudio.embedded.domains import domains
from glmstudio.embedded.makers import MAKERS
from glmstudio.embedded.reviews import TOPICS, write_review
from glmstudio.embedded.sentences import compose

ROWS = 1500


@pytest.fixture(scope="module")
def rows():
    r = Random(3)
    return [tasks.make_row(r) for _ in range(ROWS)]


def test_every_name_of_a_fact_stands_in_its_text():
    r = Random(1)
    passages = [compose(r) for _ in range(ROWS)]
    for passage in passages:
        for fact in passage.facts:
            assert fact.subject in passage.text
            assert fact.object in passage.text
        assert len(set(passage.facts)) == len(passage.facts)
    assert {passage.domain for passage in passages} == set(domains("domains"))
    assert len({fact.relation for passage in passages for fact in passage.facts}) > 40


@pytest.mark.parametrize("source", ["domains", "demo"])
def test_every_slot_of_the_templates_can_be_filled(source):
    for name, row in domains(source).items():
        for template in (*row.openers, *row.clauses):
            for slot in re.findall(r"\{([^}]*)\}", template):
                known = row.relations if slot[0] != "." else MAKERS | {"year": None, "day": None, "pages": None}
                known = known if source == "demo" or slot[0] != "." else MAKERS
                assert slot == "S" or slot.strip("~*.") in {*known, "month", "town"}, (name, template)


def test_no_row_shows_the_format_of_the_demo_set(rows):
    for row in rows:
        everything = "".join(row)
        assert sum(f'"{key}"' in everything for key in tasks.FORBIDDEN_KEYS) < 2
        assert not re.fullmatch(r'\["[^"]+"\]', row.target)


def test_json_is_answered_only_where_the_prompt_shows_keys(rows):
    for row in rows:
        if '"' in row.target and row.target.rstrip("`\n").endswith(("]", "}")):
            assert re.search(r"键|keys|\{|\[|items|JSON 对象|JSON：|JSON object|数组", row.input), row


def test_json_answers_parse_and_hold_names_of_the_prompt(rows):
    found = 0
    for row in rows:
        body = re.search(r"[\[{].*[\]}]", row.target, re.DOTALL)
        if not body or '": ' not in row.target:
            continue
        value = json.loads(body[0])
        found += 1
        for record in value if isinstance(value, list) else [value]:
            assert record
    assert found > ROWS // 4


def test_the_same_seed_gives_the_same_rows():
    assert [tasks.make_row(Random(9)) for _ in range(3)] == [tasks.make_row(Random(9)) for _ in range(3)]
    assert tasks.make_row(Random(9)) != tasks.make_row(Random(10))


def test_reviews_of_a_topic_use_its_words():
    r = Random(4)
    reviews = [write_review(r) for _ in range(ROWS)]
    assert {review.topic for review in reviews} == set(TOPICS)
    assert {review.praises for review in reviews} == {True, False}
    for review in reviews:
        words = TOPICS[review.topic]
        assert any(word in review.text for group in words for word in group), review
