"""The shipped demo dataset: what the generator writes, in the asked format, with unseen names in dev."""

import json

import pytest

from glmstudio.data.example import split_context
from glmstudio.embedded.demo import demo_rows
from glmstudio.models.sources import embedded_folder

FOLDER = embedded_folder().parent / "demo"
KEYS = {"predicate", "object_type", "subject_type", "object", "subject"}


def read(split):
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def facts(row):
    return json.loads(row["target"].removeprefix("```json\n").removesuffix("\n```")) if "```" in row["target"] else []


@pytest.mark.parametrize("split", ["train", "dev"])
def test_the_shipped_files_are_what_the_generator_writes(split):
    assert read(split) == demo_rows()[split]


@pytest.mark.parametrize(("split", "with_facts", "reviews"), [("train", 240, 160), ("dev", 48, 32)])
def test_sizes_and_formats(split, with_facts, reviews):
    rows = read(split)
    assert sum(bool(facts(row)) for row in rows) == with_facts
    assert sum(not facts(row) for row in rows) == reviews
    for row in rows:
        instruction, text = split_context(row["context"])
        assert instruction
        for fact in facts(row):
            assert set(fact) == KEYS
            assert fact["object"] in text
            assert fact["subject"] in text
        if not facts(row):
            (topic,) = json.loads(row["target"])
            assert topic in {"水果", "衣服", "洗浴", "平板", "酒店", "书籍", "电脑", "蒙牛"}


def test_dev_rows_are_new():
    train, dev = read("train"), read("dev")
    texts = {split_context(row["context"])[1].split("\n\n", 1)[1] for row in train}
    subjects = {fact["subject"] for row in train for fact in facts(row)}
    for row in dev:
        assert split_context(row["context"])[1].split("\n\n", 1)[1] not in texts
        assert not {fact["subject"] for fact in facts(row)} & subjects
