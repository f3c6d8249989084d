"""GGUF through llama.cpp's converter, here a stand-in that writes down what it was given; Ollama's Modelfile."""

import json
import sys
from pathlib import Path

import pytest

from glmstudio.errors import StudioError
from glmstudio.models.exporting import gguf
from glmstudio.models.exporting.export import export, to_gguf
from glmstudio.models.exporting.gguf_vocabulary import ConverterTokenizer
from glmstudio.models.exporting.ollama import modelfile
from glmstudio.models.families.original_glm import CHATGLM3
from glmstudio.models.families.table import FAMILIES
from glmstudio.models.vocabularies.sentencepiece_words import OPENING, ROLES
from tests import tiny_base, tiny_families
from tests.prompt_bases import TEMPLATES, with_template
from tests.unit.export_cases import chatglm_folder, random_adapter

STAND_IN = """
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
told = dict(zip(sys.argv[2::2], sys.argv[3::2]))
for share in (0, 40, 100):
    print(f"Writing: {share:3d}%|##| 1/9", end="\\r", file=sys.stderr, flush=True)
if os.environ.get("STAND_IN") == "broken":
    raise NotImplementedError("this vocabulary is not known")
seen = {file.name: file.read_text() for file in folder.iterdir() if file.suffix != ".safetensors"}
seen |= {"folder": str(folder), "told": told}
pathlib.Path(told["--outfile"]).write_text(json.dumps(seen))
"""


@pytest.fixture
def converter(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    (folder / gguf.SCRIPT).write_text(STAND_IN)
    monkeypatch.setenv(gguf.VARIABLE, str(folder))
    return folder / gguf.SCRIPT


@pytest.fixture(scope="module")
def glm(tmp_path_factory) -> Path:
    folder = tiny_families.native_folder("glm", tmp_path_factory.mktemp("glm") / "base")
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 5e6
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def seen(path: Path) -> dict:
    return json.loads(path.read_text())


def test_the_converter_gets_the_keys_that_it_reads(glm, converter, tmp_path):
    steps = []
    path = gguf.convert(glm, tmp_path / "out" / "m.gguf", "q8_0", on_progress=lambda *step: steps.append(step))
    given = seen(path)
    config = json.loads(given["config.json"])
    assert config["rope_ratio"] == 500
    assert config["layernorm_epsilon"] == config["rms_norm_eps"] == 1.5625e-07
    assert (config["seq_length"], config["attention_dim"], config["padded_vocab_size"]) == (512, 8, 320)
    assert given["tokenizer.json"] == (glm / "tokenizer.json").read_text()
    assert given["told"]["--outtype"] == "q8_0"
    assert given["told"]["--model-name"] == "base"
    assert [done for done, _, _ in steps] == [0, 40, 100]
    assert not Path(given["folder"]).exists()
    assert [file.name for file in path.parent.iterdir()] == ["m.gguf"]


def test_a_mixtures_missing_layers_are_counted_out(converter, tmp_path):
    folder = tiny_families.native_folder("glm4_moe", tmp_path / "base")
    config = json.loads((folder / "config.json").read_text()) | {"num_nextn_predict_layers": 1}
    (folder / "config.json").write_text(json.dumps(config))
    given = seen(gguf.convert(folder, tmp_path / "m.gguf"))
    assert json.loads(given["config.json"])["num_nextn_predict_layers"] == 0


def test_a_sentencepiece_vocabulary_is_handed_over(glm, converter, tmp_path):
    folder = tmp_path / "converted"
    folder.mkdir()
    config = json.loads((glm / "config.json").read_text()) | {"glmstudio_family": "chatglm3"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.model").write_text("vocabulary")
    (folder / "tokenizer.json").write_text("made for plain transformers")
    (folder / "chat_template.jinja").write_text("[gMASK]<sop>")
    given = seen(gguf.convert(folder, tmp_path / "m.gguf"))
    assert given["folder"].endswith("/THUDM/chatglm3-6b")
    assert "tokenizer.json" not in given
    assert (given["chat_template.jinja"], given["tokenizer.model"]) == ("[gMASK]sop", "vocabulary")
    tokenizer = json.loads(given["tokenizer_config.json"])
    module, name = tokenizer["auto_map"]["AutoTokenizer"][0].split(".")
    assert f"class {name}(" in given[f"{module}.py"]
    assert tokenizer["special_names"] == [*OPENING, *ROLES]


def test_the_vocabulary_names_every_id(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(tiny_base.tiny_tokenizer().sp_model.serialized_model_proto())
    tokenizer = ConverterTokenizer(str(path), ["[MASK]", "<|user|>"])
    pieces = tokenizer.tokenizer.sp_model
    last = pieces.vocab_size() - 1
    assert [tokenizer._convert_id_to_token(index) for index in range(last, last + 4)] == [
        pieces.IdToPiece(last),
        "[MASK]",
        "<|user|>",
        "",
    ]  # fmt: skip
    assert max(tokenizer.get_vocab().values()) == last + 2


def test_what_the_converter_says_is_told(glm, converter, tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN", "broken")
    with pytest.raises(StudioError) as error:
        gguf.convert(glm, tmp_path / "out" / "m.gguf")
    assert error.value.code == "gguf-failed"
    assert error.value.params["reason"] == "NotImplementedError: this vocabulary is not known"
    assert list((tmp_path / "out").iterdir()) == []


def test_stopping_leaves_nothing(glm, converter, tmp_path):
    with pytest.raises(StudioError) as error:
        gguf.convert(glm, tmp_path / "out" / "m.gguf", should_stop=lambda: True)
    assert error.value.code == "export-stopped"
    assert list((tmp_path / "out").iterdir()) == []


def test_the_converter_is_looked_for(converter, monkeypatch, tmp_path):
    assert gguf.find_converter() == [sys.executable, str(converter)]
    monkeypatch.setenv(gguf.VARIABLE, str(converter))
    assert gguf.find_converter() == [sys.executable, str(converter)]
    monkeypatch.delenv(gguf.VARIABLE)
    converter.chmod(0o755)
    monkeypatch.setenv("PATH", str(converter.parent))
    assert gguf.find_converter() == [sys.executable, str(converter)]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StudioError) as error:
        gguf.find_converter()
    assert error.value.code == "gguf-missing"


def test_what_llama_cpp_gets_wrong_is_refused(glm, converter, tmp_path):
    folder = chatglm_folder(tmp_path / "chatglm")
    with pytest.raises(StudioError) as error:
        gguf.convert(folder, tmp_path / "m.gguf")
    assert error.value.code == "gguf-unsupported"
    config = json.loads((glm / "config.json").read_text())
    config["rope_parameters"] |= {"rope_type": "linear", "factor": 4.0}
    with pytest.raises(StudioError) as error:
        gguf.refuse_unsupported(config, FAMILIES["glm"])
    assert "linear" in error.value.params["family"]
    (tmp_path / "m.gguf").touch()
    for outtype, code in (("auto", "export-not-empty"), ("q2_k", "setting-choice")):
        with pytest.raises(StudioError) as error:
            gguf.convert(glm, tmp_path / "m.gguf", outtype)
        assert error.value.code == code


def test_a_run_becomes_a_file_for_ollama(converter, tmp_path):
    base = tiny_families.native_folder("qwen2", tmp_path / "base")
    adapter = random_adapter(base, tmp_path / "adapter", style="instruction")
    result = export("gguf", tmp_path / "out" / "m.gguf", base_source=str(base), adapter=adapter, device="cpu")
    assert result.check.passed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["Modelfile", "m.gguf"]
    assert json.loads(seen(result.path)["merge_check.json"])["passed"]
    assert (tmp_path / "out" / "Modelfile").read_text() == (
        "FROM ./m.gguf\n"
        'TEMPLATE """{{ if .System }}Instruction: {{ .System }}\nInput: {{ .Prompt }}\nAnswer: {{ else }}'
        'Instruction: {{ .Prompt }}\nInput: \nAnswer: {{ end }}{{ .Response }}"""\n'
        'PARAMETER stop "<|endoftext|>"\n'
        "PARAMETER temperature 0\n"
        "PARAMETER repeat_penalty 1\n"
        "PARAMETER num_ctx 2048\n"
    )


def test_the_end_of_a_turn_that_was_trained_is_the_files_end(converter, tmp_path):
    base = tiny_families.native_folder("qwen2", tmp_path / "base")
    with_template(TEMPLATES["turns"]).save_pretrained(base)
    for style, end in (("chat", "<|observation|>"), ("instruction", "<|endoftext|>")):
        given = seen(to_gguf(base, tmp_path / style / "m.gguf", style=style).path)
        assert json.loads(given["tokenizer_config.json"])["eos_token"] == end
        assert 'PARAMETER stop "<|observation|>"' in (tmp_path / style / "Modelfile").read_text()


def test_the_style_can_be_chosen(glm, converter, tmp_path):
    to_gguf(glm, tmp_path / "out" / "m.gguf", style="chat")
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert (
        "[gMASK]<sop><|user|>\n{{ if .System }}{{ .System }}\n{{ end }}{{ .Prompt }}<|assistant|>{{ .Response }}"
        in text
    )
    assert 'PARAMETER stop "<|user|>"' in text


def test_a_token_that_the_file_puts_in_front_is_not_written_twice():
    class Starting:
        bos_token, bos_token_id, eos_token_id, chat_template = "<s>", 1, 2, None
        all_special_ids = (1, 2)

        def encode(self, text, add_special_tokens=True):
            return [1] * add_special_tokens + [ord(letter) for letter in text]

        def decode(self, ids, **_):
            return "".join(map(chr, ids))

        def convert_ids_to_tokens(self, ids):
            names = {1: "<s>", 2: "</s>"}
            return (
                [names.get(index, chr(index)) for index in ids] if isinstance(ids, list) else names.get(ids, chr(ids))
            )

        def convert_tokens_to_ids(self, token):
            return {"<s>": 1, "</s>": 2}.get(token)

    text = modelfile(Path("m.gguf"), Starting(), FAMILIES["llama"], "instruction", 9000)
    assert "<s>" not in text
    assert "num_ctx 9000" in text


def test_chatglm3_keeps_its_own_names(monkeypatch):
    class Found:
        text = "[gMASK]<sop><|user|>\n {message}<|assistant|>"

    class Tokenizer:
        bos_token_id, written = None, None

        def convert_ids_to_tokens(self, index):
            return ROLES[index]

    monkeypatch.setattr("glmstudio.models.exporting.ollama.prompt_text", lambda *_: Found)
    monkeypatch.setattr("glmstudio.models.exporting.ollama.end_ids", lambda *_: [1, 3])
    text = modelfile(Path("m.gguf"), Tokenizer(), CHATGLM3, "chat", 512)
    assert "[gMASK]sop<|user|>\n {{ if .System }}" in text
    assert [line for line in text.splitlines() if "stop" in line] == [
        'PARAMETER stop "<|user|>"',
        'PARAMETER stop "<|observation|>"',
    ]
