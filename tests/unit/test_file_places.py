"""The name of a file proposes a dataset and a split, by whole words only."""

import pytest

from glmstudio.data.file_places import place_of


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mixed_train_dataset.jsonl", ("mixed_dataset", "train")),
        ("mixed_dev_dataset.jsonl", ("mixed_dataset", "dev")),
        ("poems-test.csv", ("poems", "dev")),
        ("poems.validation.json", ("poems", "dev")),
        ("dev.jsonl", ("default", "dev")),
        ("TRAIN.JSONL.GZ", ("default", "train")),
        ("验证集.jsonl", ("default", "dev")),
        ("测试.csv", ("default", "dev")),
        ("新闻验证集.xlsx", ("新闻", "dev")),
        ("新闻_训练集_v2.xlsx", ("新闻_v2", "train")),
        ("新闻dev.csv", ("新闻", "dev")),
        ("data_latest.jsonl", ("data_latest", "train")),
        ("trainspotting.csv", ("trainspotting", "train")),
        ("pretrain.csv", ("pretrain", "train")),
        ("invalid.csv", ("invalid", "train")),
        ("contest.csv", ("contest", "train")),
        ("developer.csv", ("developer", "train")),
        ("软件测试题.csv", ("软件测试题", "train")),
        ("train_dev.csv", ("train_dev", "train")),
        ("a:b?.csv", ("default", "train")),
        (".csv", ("default", "train")),
    ],
)
def test_a_file_name_suggests_where_its_rows_go(name, place):
    assert place_of(name) == place
