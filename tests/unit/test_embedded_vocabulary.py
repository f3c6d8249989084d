"""The composed vocabulary: lossless, the same bytes everywhere, and what the shipped tokenizer reads."""

import pytest

from glmstudio.embedded.vocabulary import TextCodec, build_model, pieces
from glmstudio.models.loading import load_tokenizer
from glmstudio.models.sources import embedded_folder

TEXTS = (
    "《夜航》：作者是“林远”，定价￥３８．００元（含税）……",
    '```json\n[{"predicate": "作者", "object": "O\'Neil Kwok"}, {"predicate": "导演"}]\n```',
    " a  b   c\td\n\n  end ",
    "龘靐齉爩 émigré Ж 한국 😀",
    "Instruction: 回答。\nInput: 你好\nAnswer: ",
    "2021年3月5日，1,234.5平方公里；①②",
    "",
)


@pytest.fixture(scope="module")
def codec():
    return TextCodec(build_model())


def test_the_shipped_model_is_the_composed_one():
    assert (embedded_folder() / "ice_text.model").read_bytes() == build_model()


def test_pieces_are_unique_and_their_ids_are_their_places(codec):
    names = [piece for piece, _ in pieces()]
    assert len(set(names)) == len(names) == codec.processor.GetPieceSize()
    assert [codec.processor.IdToPiece(index) for index in range(len(names))] == names


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_exactly(codec, text):
    ids = codec.encode(text)
    assert codec.decode(ids) == text
    assert codec.processor.unk_id() not in ids


@pytest.mark.parametrize("text", TEXTS)
def test_the_shipped_tokenizer_gives_the_same_ids_and_text(codec, text):
    tokenizer = load_tokenizer(embedded_folder())
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert ids == codec.encode(text)
    assert tokenizer.decode(ids) == text


def test_a_name_keeps_its_ids_wherever_it_stands(codec):
    name = codec.encode("Kwok Lee")
    for around in ('"{}"', "（{}）", "由{}作曲", "object: {}。"):
        ids = codec.encode(around.format("Kwok Lee"))
        assert any(ids[n : n + len(name)] == name for n in range(len(ids))), around


def test_digits_and_chinese_characters_are_single_pieces(codec):
    assert len(codec.encode("1987")) == 4
    assert len(codec.encode("彧璟翀")) == 3
