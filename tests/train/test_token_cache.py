"""Rows are tokenised once: what is kept equals what would be rendered, and nothing else is ever taken for it."""

import dataclasses
from pathlib import Path

import pytest

from glmstudio.models.chatglm.tokenization_chatglm import ChatGLMTokenizer
from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training import token_cache
from glmstudio.training.batches import render_rows
from glmstudio.training.runs import RunFolder
from glmstudio.training.token_cache import FOLDER, TokenCache
from glmstudio.training.train import train
from tests.tiny_base import rows, tiny_base
from tests.train.runs import FAST

CUT = TrainingSettings(max_source_length=40, max_target_length=8)


@pytest.fixture
def rendered(monkeypatch) -> list[int]:
    """How many rows were rendered, call by call; the two sample rows that name a file are among them."""
    counts: list[int] = []

    def counting(base, examples, settings):
        counts.append(len(examples))
        return render_rows(base, examples, settings)

    monkeypatch.setattr(token_cache, "render_rows", counting)
    return counts


def files(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("*"))


@pytest.mark.parametrize("settings", [CUT, dataclasses.replace(CUT, prompt_style="chat", max_source_length=200)])
def test_kept_rows_are_the_rendered_ones(tmp_path, rendered, settings):
    base, examples = tiny_base(), rows(9)
    first = TokenCache(tmp_path, base, settings).rows("train", examples)
    again = TokenCache(tmp_path, base, settings).rows("train", examples)
    assert [*first] == [*again] == render_rows(base, examples, settings)
    assert rendered == [2, 9, 2]
    assert any(row.cut_target for row in again)
    assert len(files(tmp_path)) == 1


def test_every_other_way_to_tokenise_has_a_file_of_its_own(tmp_path):
    base = tiny_base()
    base.tokenizer.save_pretrained(tmp_path / "tokenizer")
    vocabulary = tmp_path / "tokenizer" / "ice_text.model"
    other = dataclasses.replace(base, tokenizer=ChatGLMTokenizer(str(vocabulary), num_image_tokens=7))
    ways = [(base, CUT), (base, dataclasses.replace(CUT, max_source_length=41)), (other, CUT)]
    ways.append((base, dataclasses.replace(CUT, prompt_style="chat")))
    for which, settings in ways:
        kept = TokenCache(tmp_path, which, settings).rows("train", rows(4))
        assert [*kept] == render_rows(which, rows(4), settings)
    assert [*TokenCache(tmp_path, base, CUT).rows("dev", rows(3))] == render_rows(base, rows(3), CUT)
    assert len(files(tmp_path)) == len(ways) + 1


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_file_is_made_anew(tmp_path, damage):
    base = tiny_base()
    cache = TokenCache(tmp_path, base, CUT)
    cache.rows("train", rows(9))
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert [*cache.rows("train", rows(9))] == render_rows(base, rows(9), CUT)
    assert files(tmp_path) == [file]
    assert len(file.read_bytes()) == len(whole)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / FOLDER).write_text("in the way")
    kept = TokenCache(tmp_path, tiny_base(), CUT).rows("train", rows(4))
    assert [*kept] == render_rows(tiny_base(), rows(4), CUT)


def test_the_second_run_on_a_snapshot_does_not_tokenise(tmp_path, rendered):
    lora, resident = LoraSettings(r=4), Resident(tiny_base())
    for name in ("one", "two"):
        folder = RunFolder(tmp_path / name)
        folder.create(snapshot_id="abc", dataset="tiny", base=resident.base, lora=lora, settings=FAST)
        train(resident, folder, rows(8), rows(3, first=50), lora, FAST, tokens=tmp_path)
    assert rendered == [2, 8, 3, 2]
    weights = [(tmp_path / name / "last" / "adapter_model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
