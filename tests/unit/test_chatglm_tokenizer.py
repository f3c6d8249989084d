"""The ChatGLM-6B tokenizer: equal to the original on the official vocabulary, and the same manners on a small one."""

import copy
import itertools
import json

import pytest
from transformers import BatchEncoding

from glmstudio.embedded.vocabulary import build_model
from glmstudio.errors import StudioError
from glmstudio.models.chatglm.tokenization_chatglm import ChatGLMTokenizer
from glmstudio.models.loading import load_tokenizer
from tests.small_vocabularies import TYPED, lines
from tests.unit.golden_cases import CHATGLM, official_tokenizer_folder

CASES = json.loads((CHATGLM / "tokenizer_cases.json").read_text(encoding="utf-8"))


def _official_folder(tmp_path_factory):
    source = official_tokenizer_folder()
    if not (source / "ice_text.model").is_file():
        pytest.skip(f"the official sentencepiece file is not in {source}; GLMSTUDIO_GOLDEN names the golden folder")
    folder = tmp_path_factory.mktemp("official")
    for file in (*source.iterdir(), CHATGLM / "config.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="module", params=["as downloaded", "saved again"])
def official(request, tmp_path_factory) -> ChatGLMTokenizer:
    folder = _official_folder(tmp_path_factory)
    if request.param == "saved again":
        again = tmp_path_factory.mktemp("again")
        (again / "config.json").write_bytes((folder / "config.json").read_bytes())
        load_tokenizer(folder).save_pretrained(again)
        folder = again
    return load_tokenizer(folder)


def test_special_tokens_are_the_originals(official):
    meta, ids = CASES["meta"], CASES["meta"]["special"]
    assert isinstance(official, ChatGLMTokenizer)
    assert official.all_special_tokens == meta["all_special_tokens"]
    assert official.padding_side == meta["padding_side"]
    assert (official.vocab_size, len(official)) == (ids["vocab_size"], ids["len"])
    for name in ("bos", "eos", "pad", "mask", "gmask", "end"):
        assert getattr(official, f"{name}_token_id") == ids[f"{name}_token_id"]
    pieces = {"bos": "<sop>", "eos": "<eop>", "gmask": "[gMASK]", "mask": "[MASK]", "smask": "[sMASK]", "pad": "<pad>"}
    pieces |= {"unk": "<unk>", "end": "</s>", "n": "<n>", "tab": "<|tab|>"}
    pieces |= {"blank_2": "<|blank_2|>", "blank_80": "<|blank_80|>"}
    assert official.convert_tokens_to_ids(list(pieces.values())) == [ids[name] for name in pieces]


@pytest.mark.parametrize("case", CASES["texts"], ids=lambda case: str(case["index"]))
def test_texts(official, case):
    text, ids = case["text"], case["ids"]
    assert official.encode(text, add_special_tokens=False) == ids
    assert official(text)["input_ids"] == case["ids_with_special"]
    assert official.tokenize(text) == case["tokens"]
    assert official.convert_ids_to_tokens(ids) == case["tokens"]
    assert official.decode(ids) == case["decode"]
    assert official.decode(case["ids_with_special"]) == case["decode_with_special"]
    assert official.decode(case["ids_with_special"], skip_special_tokens=True) == case["decode_with_special_skip"]
    assert (case["decode"] == text) == case["round_trip"]


@pytest.mark.parametrize("case", CASES["pairs"])
def test_pairs(official, case):
    assert official.build_inputs_with_special_tokens(case["ids_a"]) == case["single"]
    assert official.build_inputs_with_special_tokens(case["ids_a"], case["ids_b"]) == case["pair"]


@pytest.mark.parametrize("case", CASES["padding"])
def test_padding(official, case):
    batch = official(case["texts"], **case["kwargs"])
    assert isinstance(batch, BatchEncoding)
    assert set(batch) == {"input_ids", "attention_mask"}
    assert batch["input_ids"] == case["input_ids"]
    # The original's mask is (1, s, s) with 1 = hidden; its last row hides nothing but the pads.
    for row, mask in enumerate(case.get("attention_mask", [])):
        assert batch["attention_mask"][row] == [1 - hidden for hidden in mask[0][-1]]


def test_truncation_keeps_the_opening_of_the_answer(official):
    whole = official("晚上睡不着怎么办")["input_ids"]
    short = official("晚上睡不着怎么办", truncation=True, max_length=4)["input_ids"]
    assert short == [*whole[:2], official.gmask_token_id, official.bos_token_id]


@pytest.mark.parametrize("case", CASES["chat"])
def test_chat_prompts(official, case):
    assert official(case["prompt"])["input_ids"] == case["ids"]


@pytest.mark.parametrize("case", CASES["sft"])
def test_rows_of_the_training_layout(official, case):
    context = official.encode(case["context"], add_special_tokens=False)[: case["max_source_seq_len"] - 1]
    target = official.encode(case["target"], add_special_tokens=False)[: case["max_target_seq_len"] - 2]
    ids = official.build_inputs_with_special_tokens(context, target)
    pads = case["max_source_seq_len"] + case["max_target_seq_len"] - len(ids)
    start = ids.index(official.bos_token_id)
    assert ids + [official.pad_token_id] * pads == case["input_ids"]
    assert [-100] * start + ids[start:] + [-100] * pads == case["labels"]


def test_decoding_drops_what_has_no_text(official):
    unknown_rows = [official.vocab_size, 999_999]
    assert official.decode([official.mask_token_id, official.pad_token_id, 5, 74874, *unknown_rows]) == "你好"
    assert official.decode([official.unk_token_id]) == " ⁇ "
    assert official.decode(official.encode("a ,b .", add_special_tokens=False)) == "a,b."
    assert official.decode(74874) == "你好"


def test_the_first_release_puts_image_tokens_in_front(tmp_path_factory):
    folder = _official_folder(tmp_path_factory)
    first = ChatGLMTokenizer(str(folder / "ice_text.model"))
    now = load_tokenizer(folder)
    text = "你好 [gMASK] <sop> world"
    assert first.encode(text) == [20000 + index for index in now.encode(text)]
    assert first.decode(first.encode(text)) == now.decode(now.encode(text))
    assert first.convert_tokens_to_ids("<image_3>") == 3
    assert first.convert_ids_to_tokens(3) == "<image_3>"
    assert len(first) == len(now) + 20000


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> ChatGLMTokenizer:
    """The tokenizer of the embedded base, written and read again."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "ice_text.model").write_bytes(build_model())
    made = ChatGLMTokenizer(str(folder / "ice_text.model"), num_image_tokens=0, clean_up_tokenization_spaces=False)
    made.save_pretrained(folder)
    return ChatGLMTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "如何演好自己的角色,请读《演员自我修养》。",
        'Answer: ```json\n[{"subject": "a 😀", "object": "b"}]\n```\n',
        "  lead, tail  \n\n\tx" + " " * 19 + "y , z .",
        "[gMASK] typed",
        "鱻𠮷 ﬁ",
    ],
)
def test_the_small_vocabulary_loses_nothing(small, text):
    ids = small.encode(text, add_special_tokens=False)
    assert small.decode(ids) == text
    assert small.gmask_token_id not in ids
    assert small(text)["input_ids"] == [*ids, small.gmask_token_id, small.bos_token_id]


def test_a_text_is_read_at_once_as_by_its_pieces(small):
    texts = [*TYPED, *lines()[:200], "a <sop>\n b<eop>", "<image_3> <image_7>", "<n><|blank_3|>   x", "鱻" * 9]
    for text, special in itertools.product(texts, (True, False)):
        by_pieces = small(text, add_special_tokens=special)["input_ids"]
        assert small.encode(text, add_special_tokens=special) == by_pieces, text


def test_special_tokens_in_a_text_swallow_the_blanks_around_them(small):
    ids = small.encode("a <sop>\n b<eop>", add_special_tokens=False)
    a, b = (small.encode(letter, add_special_tokens=False) for letter in "ab")
    assert ids == [*a, small.bos_token_id, *b, small.eos_token_id]
    assert small.eos_token_id not in small.encode("b<eop>", add_special_tokens=False, split_special_tokens=True)


def test_own_tokens_come_after_the_pieces(small):
    grown = copy.deepcopy(small)
    assert grown.add_tokens(["<extra>", "<sop>"]) == 1
    assert len(grown) == len(small) + 1
    assert grown.encode("a <extra>", add_special_tokens=False)[-1] == len(small)


def test_a_damaged_vocabulary_is_named(tmp_path):
    (tmp_path / "config.json").write_bytes((CHATGLM / "config.json").read_bytes())
    with pytest.raises(StudioError) as caught:
        load_tokenizer(tmp_path)
    assert (caught.value.code, caught.value.params["file"]) == ("base-incomplete", "ice_text.model")
    (tmp_path / "ice_text.model").write_bytes(build_model()[:5000])
    (tmp_path / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(StudioError) as caught:
        load_tokenizer(tmp_path)
    assert (caught.value.code, caught.value.params["folder"]) == ("tokenizer-unreadable", str(tmp_path))
