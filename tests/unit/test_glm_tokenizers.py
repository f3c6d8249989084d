"""Tokenizers of ChatGLM2, ChatGLM3 and GLM-4: equal to the originals, and what plain transformers reads of them."""

import json
import shutil
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from glmstudio.errors import StudioError
from glmstudio.models.loading import load_tokenizer
from glmstudio.models.vocabularies.tokenization_glm import GLM_4_END, SentencePieceGlmTokenizer
from tests.small_vocabularies import (
    TYPED,
    lines,
    merged,
    sentencepiece_file,
    tiktoken_file,
    tiktoken_ranks,
    words_of,
)
from tests.unit.golden_cases import CHATGLM2, CHATGLM3, GLM_4, official_tokenizer_folder

SETS = {folder.name: folder for folder in (CHATGLM2, CHATGLM3)}
CASES = {
    name: json.loads((folder / "tokenizer_cases.json").read_text(encoding="utf-8")) for name, folder in SETS.items()
}
ROLES = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]


def every(kind: str) -> list:
    return [
        pytest.param(name, case, id=f"{name}-{number}")
        for name in SETS
        for number, case in enumerate(CASES[name][kind])
    ]


def _again(folder: Path, into: Path) -> Path:
    """The folder's config beside what its tokenizer saves of itself."""
    shutil.copy(folder / "config.json", into)
    load_tokenizer(folder).save_pretrained(into)
    return into


@pytest.fixture(scope="module", params=["as downloaded", "saved again"])
def official(request, tmp_path_factory):
    """The tokenizer by the set's name, on the official vocabulary."""
    folders, known = {}, {}

    def loaded(name: str) -> SentencePieceGlmTokenizer:
        source = official_tokenizer_folder(name)
        if not (source / "tokenizer.model").is_file():
            pytest.skip(f"the official sentencepiece file is not in {source}; GLMSTUDIO_GOLDEN names the golden folder")
        if name not in known:
            folders[name] = tmp_path_factory.mktemp(name)
            for file in (*source.iterdir(), SETS[name] / "config.json"):
                (folders[name] / file.name).write_bytes(file.read_bytes())
            if request.param == "saved again":
                folders[name] = _again(folders[name], tmp_path_factory.mktemp("again"))
            known[name] = load_tokenizer(folders[name])
        return known[name]

    return loaded


@pytest.mark.parametrize("name", SETS)
def test_special_tokens_are_the_originals(official, name):
    tokenizer, ids = official(name), dict(CASES[name]["meta"]["special"])
    assert isinstance(tokenizer, SentencePieceGlmTokenizer)
    assert (tokenizer.vocab_size, len(tokenizer)) == (ids.pop("vocab_size"), ids.pop("len"))
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (ids.pop("eos_token_id"), ids.pop("pad_token_id"))
    assert tokenizer.bos_token_id == ids.pop("<bos>")
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (ids.pop("<eos>"), ids.pop("<pad>"))
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in ids} == ids
    assert tokenizer.padding_side == CASES[name]["meta"]["padding_side"]


@pytest.mark.parametrize(("name", "case"), every("texts"))
def test_texts(official, name, case):
    tokenizer, text, ids = official(name), case["text"], case["ids"]
    assert tokenizer.encode(text, add_special_tokens=False) == ids
    assert tokenizer(text)["input_ids"] == case["ids_with_special"]
    assert tokenizer.tokenize(text) == tokenizer.convert_ids_to_tokens(ids) == case["tokens"]
    assert tokenizer.decode(ids) == case["decode"]
    assert tokenizer.decode(case["ids_with_special"]) == case["decode_with_special"]
    assert tokenizer.decode(case["ids_with_special"], skip_special_tokens=True) == case["decode_with_special_skip"]
    assert (case["decode"] == text) == case["round_trip"]


@pytest.mark.parametrize(("name", "case"), every("pairs"))
def test_pairs(official, name, case):
    tokenizer = official(name)
    assert tokenizer.build_inputs_with_special_tokens(case["ids_a"]) == case["single"]
    assert tokenizer.build_inputs_with_special_tokens(case["ids_a"], case["ids_b"]) == case["pair"]


@pytest.mark.parametrize(("name", "case"), every("padding"))
def test_padding(official, name, case):
    batch = official(name)(case["texts"], **case["kwargs"])
    assert dict(batch) == {key: case[key] for key in ("input_ids", "attention_mask")}


@pytest.mark.parametrize(("name", "case"), [p for p in every("chat") if "query" in p.values[1]])
def test_chat_prompts(official, name, case):
    messages = [
        part
        for message in case["history"]
        for part in (
            [{"role": role, "content": text} for role, text in zip(("user", "assistant"), message, strict=True)]
            if isinstance(message, list)
            else [dict(message)]
        )
    ]
    if any("tools" in message for message in messages):
        tools = json.dumps(messages[0]["tools"], indent=4, ensure_ascii=False)
        messages[0] = {"role": "system", "content": f"{messages[0]['content']}\n{tools}"}
    messages.append({"role": "user", "content": case["query"]})
    prompt = {"add_generation_prompt": True, "return_dict": False}
    assert official(name).apply_chat_template(messages, **prompt) == case["ids"]


@pytest.mark.parametrize("case", CASES["chatglm2"]["sft"])
def test_rows_of_the_official_training(official, case):
    tokenizer, message = official("chatglm2"), [{"role": "user", "content": case["context"]}]
    prompt = tokenizer.apply_chat_template(message, return_dict=False)
    target = tokenizer.encode(case["target"], add_special_tokens=False)
    assert [*prompt, *target, tokenizer.eos_token_id] == case["input_ids"]


def test_roles_are_read_from_text_only_when_asked(official):
    case = CASES["chatglm3"]["encode_special_tokens_true"][0]
    tokenizer = official("chatglm3")
    assert tokenizer.tokenize(case["text"], split_special_tokens=False) == case["tokens"]
    assert tokenizer.encode(case["text"], add_special_tokens=False, split_special_tokens=False) == case["ids"]
    assert not set(tokenizer.encode(case["text"], add_special_tokens=False)) & set(case["ids"][:1])


@pytest.fixture(scope="module", params=["chatglm2", "chatglm3"])
def small(request, tmp_path_factory) -> Path:
    """A folder with a small vocabulary of the official kind."""
    folder = tmp_path_factory.mktemp("small")
    shutil.copy(SETS[request.param] / "config.json", folder)
    (folder / "tokenizer.model").write_bytes(sentencepiece_file())
    return folder


def test_a_small_vocabulary_cuts_text_as_sentencepiece_does(small):
    tokenizer, pieces = load_tokenizer(small), SentencePieceProcessor(model_proto=sentencepiece_file())
    special = set(range(pieces.GetPieceSize(), len(tokenizer)))
    assert len(special) in (5, 9)
    for text in (*TYPED, *lines(), "\n".join(lines())):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == pieces.Encode(text), text
        assert tokenizer.decode(ids) == pieces.Decode(ids) == text
        assert not special & set(ids)


def test_what_is_no_character_decodes_as_in_sentencepiece(small):
    tokenizer, pieces = load_tokenizer(small), SentencePieceProcessor(model_proto=sentencepiece_file())
    face = [pieces.PieceToId(f"<0x{byte:02X}>") for byte in "😀".encode()]
    word = pieces.Encode("word")
    for ids in (face, face[:3], face + face[:2], [*face, *word, *face[1:]], [*word, *face[:1], *word]):
        assert tokenizer.decode(ids) == pieces.Decode(ids)
    assert tokenizer.decode([*word, tokenizer.eos_token_id, len(tokenizer) + 5]) == "word"
    assert tokenizer.decode(word[0]) == pieces.Decode(word[:1])


def test_plain_transformers_reads_what_is_saved(small, tmp_path):
    tokenizer, plain = load_tokenizer(small), AutoTokenizer.from_pretrained(_again(small, tmp_path))
    assert isinstance(plain, PreTrainedTokenizerFast)
    assert not isinstance(plain, SentencePieceGlmTokenizer)
    assert plain.padding_side == "left"
    texts = ["晚上睡不着怎么办", "Hello", "sophomore eopatra"]
    assert dict(plain(texts, padding=True)) == dict(tokenizer(texts, padding=True))
    assert [plain.decode(ids, skip_special_tokens=True) for ids in plain(texts)["input_ids"]] == texts
    assert plain.convert_tokens_to_ids(["[gMASK]", "<sop>"]) == tokenizer.convert_tokens_to_ids(["[gMASK]", "sop"])
    for rounds in (1, 3):
        messages = [{"role": role, "content": f"说 {i}\n"} for i in range(rounds) for role in ("user", "assistant")][
            :-1
        ]
        wish = {"add_generation_prompt": True, "return_dict": False}
        prompt = plain.apply_chat_template(messages, **wish)
        assert prompt == tokenizer.apply_chat_template(messages, **wish)
        assert prompt[:2] == tokenizer.convert_tokens_to_ids(["[gMASK]", "sop"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "unigram"}, "byte-pair"),
        ({"byte_fallback": False}, "byte-pair"),
        ({"normalization_rule_name": "nfkc"}, "byte-pair"),
        ({"remove_extra_whitespaces": True}, "byte-pair"),
        ({"add_dummy_prefix": False}, "byte-pair"),
        ({"user_defined_symbols": "<x>"}, "byte-pair"),
        ({"user_defined_symbols": "[MASK]"}, "byte-pair"),
        ("cut short", "cut short"),
        ("text", ""),
    ],
)
def test_a_vocabulary_of_another_kind_is_refused(tmp_path, changes, reason):
    data = {"cut short": sentencepiece_file()[:-3], "text": b"<html>404</html>"}
    data = data[changes] if isinstance(changes, str) else sentencepiece_file(**changes)
    shutil.copy(CHATGLM3 / "config.json", tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(StudioError) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.code == "tokenizer-unreadable"
    assert reason in caught.value.params["reason"]


def test_the_vocabulary_must_be_there(tmp_path):
    shutil.copy(CHATGLM2 / "config.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(StudioError) as caught:
        load_tokenizer(tmp_path)
    assert (caught.value.code, caught.value.params["file"]) == ("base-incomplete", "tokenizer.model")


@pytest.fixture
def glm_4(tmp_path) -> Path:
    shutil.copy(GLM_4 / "config.json", tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(tiktoken_file(tiktoken_ranks()))
    return tmp_path


@pytest.mark.parametrize("saved", [False, True])
def test_glm_4_cuts_text_as_tiktoken_does(glm_4, tmp_path_factory, saved):
    ranks = tiktoken_ranks()
    tokenizer = load_tokenizer(_again(glm_4, tmp_path_factory.mktemp("again")) if saved else glm_4)
    assert len(ranks) == 406
    for text in (*TYPED, *lines()):
        if any(token in text for token in tokenizer.added_tokens_encoder):
            continue
        whole = [[word] if word in ranks else [word[i : i + 1] for i in range(len(word))] for word in words_of(text)]
        ids = [ranks[part] for word in whole for part in merged(word, ranks)]
        assert tokenizer.encode(text, add_special_tokens=False) == ids, text
        assert tokenizer.decode(ids) == text


def test_special_tokens_of_glm_4(glm_4):
    tokenizer, first = load_tokenizer(glm_4), len(tiktoken_ranks())
    names = [GLM_4_END, "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", *ROLES, "<|begin_of_image|>"]
    names += ["<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"]
    assert tokenizer.convert_tokens_to_ids(names) == list(range(first, first + 14))
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == first
    hello = tokenizer.encode("hello", add_special_tokens=False)
    assert tokenizer("hello")["input_ids"] == [first + 2, first + 4, *hello]
    assert tokenizer(["hello", ""], padding=True)["attention_mask"][1] == [0] * len(hello) + [1, 1]
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "hello"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert prompt == [first + 2, first + 4, first + 6, 10, ord("a"), first + 7, 10, *hello, first + 8]
    assert tokenizer.decode(prompt, skip_special_tokens=True) == "\na\nhello"


def test_glm_4_takes_names_and_template_of_its_config(glm_4):
    tokens = {str(600 + i): {"content": token} for i, token in enumerate((GLM_4_END, "[gMASK]", "<sop>", "<|x|>"))}
    config = {"added_tokens_decoder": tokens, "chat_template": "{{ messages[0]['content'] }}<|x|>"}
    (glm_4 / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = load_tokenizer(glm_4)
    assert tokenizer.eos_token_id == 600
    assert tokenizer("")["input_ids"] == [601, 602]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], return_dict=False) == [ord("a"), 603]


@pytest.mark.parametrize("data", [b"no base64 1\n", b"YQ== x\n", b"YQ==\n", b""])
def test_a_file_that_is_no_tiktoken_vocabulary(glm_4, data):
    (glm_4 / "tokenizer.model").write_bytes(data)
    with pytest.raises(StudioError, match="tokenizer-unreadable"):
        load_tokenizer(glm_4)
