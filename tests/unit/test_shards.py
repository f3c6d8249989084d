"""Sharded checkpoints: what is written is what was given, one shard at a time in memory, stopped between two."""

import json
import weakref
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load_file

from glmstudio.models import converting
from glmstudio.models.exporting import shards
from tests.unit.test_converting import CHATGLM3

LIMIT = 4 * 1000 * 3


class Alive:
    """Counts the bytes of the tensors that it made or saw and that are still there, and the most that were."""

    def __init__(self) -> None:
        self.bytes = self.most = 0

    def see(self, value: torch.Tensor) -> torch.Tensor:
        size = value.nbytes
        self.bytes += size
        self.most = max(self.most, self.bytes)
        weakref.finalize(value, self._gone, size)
        return value

    def _gone(self, size: int) -> None:
        self.bytes -= size


def numbers(count: int, alive: Alive) -> Iterator[tuple[str, torch.Tensor]]:
    for index in range(count):
        yield f"layer.{index}", alive.see(torch.full((1000,), float(index)))


def test_one_shard_is_in_memory(tmp_path):
    alive, told = Alive(), []
    plan = shards.planned({f"layer.{index}": torch.empty(1000, device="meta") for index in range(20)}, LIMIT)
    assert shards.write_shards(tmp_path, plan, numbers(20, alive), on_progress=lambda *step: told.append(step))
    # The tensor that is about to come, beside a shard.
    assert alive.most <= LIMIT + 4000
    assert told == [(min(LIMIT * step, 80_000), 80_000) for step in range(1, 8)]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["metadata"] == {"total_size": 80_000}
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / file)[name], torch.full((1000,), float(name.rpartition(".")[2])))


def test_a_conversion_has_one_shard_in_memory(tmp_path, monkeypatch):
    alive, limit = Alive(), 120_000
    read = converting._Stored.read
    monkeypatch.setattr(
        converting._Stored,
        "read",
        lambda stored, *rest: ((name, alive.see(part)) for name, part in read(stored, *rest)),
    )
    report = converting.convert(CHATGLM3, tmp_path / "new", shard_bytes=limit)
    largest = max(part.nbytes for file in (tmp_path / "new").glob("*.safetensors") for part in load_file(file).values())
    assert 0 < alive.most <= limit + largest < report.bytes / 2
    assert alive.bytes == 0


def test_it_ends_between_two_shards_when_it_should(tmp_path):
    alive, plan = Alive(), shards.planned(dict(numbers(9, Alive())), LIMIT)
    asked = iter((False, True))
    assert not shards.write_shards(tmp_path, plan, numbers(9, alive), should_stop=lambda: next(asked))
    assert [path.name for path in tmp_path.iterdir()] == ["model-00001-of-00003.safetensors"]


@pytest.mark.parametrize("limit", [LIMIT, 10**9])
def test_views_and_shared_memory_are_written_each_for_itself(limit, tmp_path):
    whole = torch.arange(8000.0)
    named = {"first": whole[:4000], "again": whole[:4000], "turned": whole.view(2, 4000).t(), "rest": whole[4000:]}
    plan = shards.planned(named, limit)
    assert plan.is_sharded == (limit == LIMIT)
    assert shards.write_shards(tmp_path, plan, named.items())
    found = {name: value for file in tmp_path.glob("*.safetensors") for name, value in load_file(file).items()}
    assert found.keys() == named.keys()
    assert all(torch.equal(found[name], value) for name, value in named.items())
