"""What a model family is to everyone else: a row of data, and how its files become a model and a tokenizer.

A family whose files transformers does not read by itself overrides the methods, in a file of its own beside this one.
Heavy packages are imported inside the methods: telling the family of a config needs none of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio.models.prompts.chat_forms import ChatForm

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from glmstudio.models.quantisation.quantising import Shrink
    from glmstudio.models.stored_tensors import StoredTensors
    from glmstudio.models.vocabularies.sentencepiece_words import SentencepieceWords

# Written into the config.json of a converted folder, whose model_type is "glm" whatever it was before.
FAMILY_KEY = "glmstudio_family"


@dataclass(frozen=True)
class Family:
    """`title` is the name that people know. `target_modules` are PEFT's names for LoRA; `opens_answer` the tokens
    between prompt and answer, empty where the tokenizer's own special tokens lead; `start_bears_loss` whether
    predicting the last of them counts in training. `stop_tokens` end an answer besides the config's end ids.
    `chat` is the form of its dialogue, None where the tokenizer's chat template has it.

    `converted`: the original form becomes transformers' GlmForCausalLM while loading. `stretches_positions`: the
    original config's `rope_ratio` divides positions instead of multiplying the base of the rotary angles. `tied`:
    embedding and head are one matrix where the config does not say. `tokenizer_files` a tokenizer cannot do without;
    `words` are those beside the pieces of a sentencepiece vocabulary. `published_as` is a regular expression for the
    names of bases whose adapters only the name tells from those of another family. `import_line` makes plain
    transformers know the family. `in_llama_cpp`: llama.cpp has such models; `llama_cpp_keys` are what its converter
    reads in the config besides. `export_forms` are those of merged weights. `packs`: samples may lie end to end in one
    sequence, and rows that are answered in one cache (`models.varlen`)."""

    name: str
    title: str
    target_modules: tuple[str, ...] = ("all-linear",)
    opens_answer: tuple[str, ...] = ()
    start_bears_loss: bool = False
    stop_tokens: tuple[str, ...] = ()
    chat: ChatForm | None = None
    converted: bool = False
    stretches_positions: bool = False
    tied: bool = False
    tokenizer_files: tuple[str, ...] = ()
    words: "SentencepieceWords | None" = None
    published_as: str = ""
    import_line: str = ""
    in_llama_cpp: bool = True
    llama_cpp_keys: tuple[tuple[str, Any], ...] = ()
    export_forms: tuple[str, ...] = ("native",)
    packs: bool = True

    def form(self, config: Mapping[str, Any]) -> str:
        """The form of a folder with this parsed config.json, one of `anatomy.FORMS`."""
        return "converted" if FAMILY_KEY in config else "native"

    def load_model(
        self, folder: Path, config: Mapping[str, Any], device: "torch.device", dtype: "torch.dtype", shrink: "Shrink"
    ) -> "PreTrainedModel":
        """The model of a folder with this parsed config.json, on `device` unless transformers reads it, which is on
        the CPU. `shrink` is called after every shard that was read. Raises StudioError for what is wrong with files."""
        from glmstudio.models.native import load_native

        return load_native(folder, dtype, shrink)

    def read_tokenizer(self, folder: Path) -> "PreTrainedTokenizerBase":
        """The tokenizer of a folder. Raises whatever its class raises."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)

    def stored_tensors(self, folder: Path, config: Mapping[str, Any]) -> "StoredTensors":
        """The tensors of the model that the config describes, and which of them each stored one becomes.

        Raises whatever the model's class raises of a config.
        """
        from glmstudio.models.native import native_stored_tensors

        return native_stored_tensors(folder)
