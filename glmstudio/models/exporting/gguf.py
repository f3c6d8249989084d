"""A model folder into one GGUF file, by llama.cpp's own converter in a process of its own. Loads no model.

The converter is found, not shipped: by an environment variable or on PATH.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from glmstudio.errors import StudioError
from glmstudio.models.checkpoint_files import read_json
from glmstudio.models.exporting import gguf_vocabulary
from glmstudio.models.exporting.destinations import workplace
from glmstudio.models.families.family import FAMILY_KEY, Family
from glmstudio.models.families.table import family_of
from glmstudio.models.vocabularies.sentencepiece_words import SentencepieceWords
from glmstudio.settings import GGUF_TYPES

VARIABLE = "GLMSTUDIO_LLAMA_CPP"
SCRIPT = "convert_hf_to_gguf.py"
ROPE_THETA = 10000.0
# The converter reads a sentencepiece vocabulary only where the folder's name ends like this.
SENTENCEPIECE_NAME = "THUDM/chatglm3-6b"
_PERCENT = re.compile(r"Writing:\s+(\d+)%")

Progress = Callable[[int, int, str], None]


def convert(
    folder: str | Path,
    destination: str | Path,
    outtype: str = "auto",
    *,
    end: str | None = None,
    on_progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Writes `destination`, a .gguf file, from the model in `folder`, in native form.

    `end` is the token that ends an answer, where it is another one than the folder's tokenizer says: llama.cpp stops
    at what the file has as the end of the text. `outtype` is one of `GGUF_TYPES`; auto takes the 16-bit type nearest to
    the files. `on_progress(done, 100, "gguf")` counts percent written. Raises StudioError `gguf-missing` (no
    converter), `gguf-unsupported` (family or quirk), `gguf-failed` with what the converter says, `export-stopped`,
    `export-not-empty`.
    """
    folder, destination = Path(folder), Path(destination)
    if outtype not in GGUF_TYPES:
        raise StudioError("setting-choice", field="outtype", value=outtype, choices=", ".join(GGUF_TYPES))
    if destination.exists():
        raise StudioError("export-not-empty", folder=str(destination))
    config = read_json(folder / "config.json")
    family = family_of(config, str(folder))
    refuse_unsupported(config, family)
    command = find_converter()
    with workplace(destination) as beside, _staged(folder, config, family, end) as stage:
        unfinished = beside / destination.name
        arguments = [*command, str(stage), "--outfile", str(unfinished), "--outtype", outtype]
        arguments += ["--model-name", folder.resolve().name]
        whole = _run(arguments, stage, on_progress or (lambda *_: None), should_stop or (lambda: False))
        if not whole:
            raise StudioError("export-stopped", folder=str(destination))
        if not unfinished.is_file():
            raise StudioError("gguf-failed", reason=f"no file {destination.name} was written")
        os.replace(unfinished, destination)
    return destination


def refuse_unsupported(config: Mapping[str, Any], family: Family) -> None:
    """Raise StudioError `gguf-unsupported` where llama.cpp has no such model, or would compute it wrong."""
    if not family.in_llama_cpp:
        raise StudioError("gguf-unsupported", family=family.title)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if config.get("model_type") == "glm" and rope.get("rope_type", "default") != "default":
        raise StudioError("gguf-unsupported", family=f"{family.title} (rope_type {rope['rope_type']})")


def find_converter() -> list[str]:
    """The command that runs the converter: of `GLMSTUDIO_LLAMA_CPP` (llama.cpp's folder or the script in it), else of
    PATH. Raises StudioError `gguf-missing`."""
    if wish := os.environ.get(VARIABLE):
        script = Path(wish) / SCRIPT if Path(wish).is_dir() else Path(wish)
        if not script.is_file():
            raise StudioError("gguf-missing", variable=f"{VARIABLE}={wish}", script=SCRIPT)
        return [sys.executable, str(script)]
    if script := shutil.which(SCRIPT):
        return [sys.executable, script]
    raise StudioError("gguf-missing", variable=VARIABLE, script=SCRIPT)


@contextmanager
def _staged(folder: Path, config: Mapping[str, Any], family: Family, end: str | None) -> Iterator[Path]:
    """A folder of links to the model's files; config and vocabulary as the converter wants to find them."""
    with tempfile.TemporaryDirectory(prefix="glmstudio-gguf-") as name:
        words = family.words if FAMILY_KEY in config else None
        stage = Path(name) / (SENTENCEPIECE_NAME if words else "model")
        stage.mkdir(parents=True)
        own = {"config.json": json.dumps(dict(config) | _converter_keys(config) | dict(family.llama_cpp_keys))}
        if words:
            own |= _vocabulary_files(folder, words)
        elif end is not None:
            about = read_json(folder / "tokenizer_config.json")
            own["tokenizer_config.json"] = json.dumps(about | {"eos_token": end})
        for file in folder.resolve().iterdir():
            if file.is_file() and file.name not in own:
                (stage / file.name).symlink_to(file)
        for file_name, text in own.items():
            if text:
                (stage / file_name).write_text(text, encoding="utf-8")
        yield stage


def _vocabulary_files(folder: Path, words: SentencepieceWords) -> dict[str, str]:
    """The tokenizer of a sentencepiece family for the converter, and its chat template with the original names."""
    module = Path(gguf_vocabulary.__file__)
    class_name = f"{module.stem}.{gguf_vocabulary.ConverterTokenizer.__name__}"
    config = {
        "tokenizer_class": gguf_vocabulary.ConverterTokenizer.__name__,
        "auto_map": {"AutoTokenizer": [class_name, None]},
        "special_names": list(words.special),
    }
    template = folder / "chat_template.jinja"
    return {
        module.name: module.read_text(encoding="utf-8"),
        "tokenizer_config.json": json.dumps(config),
        # The file made for plain transformers would be read in its place.
        "tokenizer.json": "",
        template.name: template.read_text(encoding="utf-8").replace("<sop>", "sop") if template.is_file() else "",
    }


def _converter_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the original ChatGLM configs, which the converter reads for GlmForCausalLM too: without them it takes
    1e-5, 10000 and the hidden size for epsilon, rotary base and context."""
    if config.get("model_type") != "glm":
        return {}
    rope = config.get("rope_parameters") or config
    heads = config["num_attention_heads"]
    return {
        "padded_vocab_size": config["vocab_size"],
        "layernorm_epsilon": config["rms_norm_eps"],
        "rope_ratio": rope.get("rope_theta", ROPE_THETA) / ROPE_THETA,
        "seq_length": config["max_position_embeddings"],
        "attention_dim": config.get("head_dim") or config["hidden_size"] // heads,
    }


def _run(command: list[str], stage: Path, on_progress: Progress, should_stop: Callable[[], bool]) -> bool:
    """Whether the converter came to its end; False when it was stopped."""
    # The class of a sentencepiece vocabulary is loaded as the model's own code: its copy goes with the staged folder.
    environment = os.environ | {"HF_MODULES_CACHE": str(stage.parent / "modules")}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment,
    )
    said: deque[str] = deque(maxlen=40)
    try:
        for line in _lines(process.stderr):
            said.append(line)
            if found := _PERCENT.search(line):
                on_progress(int(found[1]), 100, "gguf")
            if should_stop():
                return False
        if process.wait() != 0:
            raise StudioError("gguf-failed", reason=_reason(said))
        return True
    finally:
        process.kill()
        process.wait()


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Lines as they come; a progress bar ends its lines with a carriage return."""
    rest = b""
    while chunk := stream.read(4096):
        *whole, rest = re.split(rb"[\r\n]", rest + chunk)
        yield from (line.decode("utf-8", "replace") for line in whole if line.strip())
    if rest.strip():
        yield rest.decode("utf-8", "replace")


def _reason(said: deque[str]) -> str:
    """The converter's last line that is no part of a traceback's body."""
    return next((line.strip() for line in reversed(said) if not line.startswith(" ")), "no reason given")
