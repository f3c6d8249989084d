"""What a model folder holds, from its configs, file names and headers: family, form, tensors, sizes, what is wrong.

Reads no weights and builds no model; every problem is collected instead of raised.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_about import RECORD
from glmstudio.models.chatglm.weights import WRAPPED_HEAD
from glmstudio.models.checkpoint_files import Header, read_config, survey_weights, tensor_headers
from glmstudio.models.families.family import Family
from glmstudio.models.families.table import family_of
from glmstudio.models.quantisation.quantised import quantisation_of

FORMS = ("embedded", "official", "original", "native", "converted", "merged", "int8", "int4")
# Tables that are computed, the scales of packed rows, and what routes a mixture without being trained.
NO_PARAMETER = re.compile(r"inv_freq$|_scale$|e_score_correction_bias$")
HEADS = ("lm_head.weight", WRAPPED_HEAD)


@dataclass(frozen=True)
class Shape:
    """Sizes that every causal model has, under one name each; 0 where its config says nothing."""

    layers: int
    hidden: int
    inner: int
    kv_width: int
    vocabulary: int
    positions: int


@dataclass
class Anatomy:
    """`family` is None where the config names none that is known. `form` is one of `FORMS`, or "" without a family:
    official names of ChatGLM-6B, the original form of later ones (converted while loading), transformers' own, …

    `headers` has the tensors of every file that can be read. `problems` come in the order of the files.
    """

    folder: Path
    source: str
    config: dict[str, Any] = field(default_factory=dict)
    family: Family | None = None
    form: str = ""
    files: list[Path] = field(default_factory=list)
    headers: dict[Path, dict[str, Header]] = field(default_factory=dict)
    problems: list[StudioError] = field(default_factory=list)

    @property
    def tensors(self) -> dict[str, Header]:
        return {name: header for headers in self.headers.values() for name, header in headers.items()}

    @property
    def bytes_on_disk(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())

    @property
    def tied(self) -> bool:
        """Whether embedding and head are one matrix, whatever the files repeat."""
        return bool(self.config.get("tie_word_embeddings", self.family is not None and self.family.tied))

    @property
    def parameters(self) -> int:
        """Numbers of the model: packed ones counted singly, a head that repeats the embedding not at all."""
        repeated = HEADS if self.tied else ()
        return sum(
            self.numbers_of(header)
            for name, header in self.tensors.items()
            if not NO_PARAMETER.search(name) and name not in repeated
        )

    def numbers_of(self, header: Header) -> int:
        return header.numel * (2 if self.form == "int4" and header.dtype == "int8" else 1)

    @property
    def shape(self) -> Shape:
        heads = self._first("num_attention_heads", "n_head")
        hidden = self._first("hidden_size", "n_embd")
        width = self._first("kv_channels", "head_dim") or (hidden // heads if heads else 0)
        grouped = self._first("num_key_value_heads")
        if self.config.get("multi_query_attention"):
            grouped = self._first("multi_query_group_num")
        return Shape(
            layers=self._first("num_layers", "num_hidden_layers", "n_layer"),
            hidden=hidden,
            inner=self._first("inner_hidden_size", "ffn_hidden_size", "intermediate_size"),
            kv_width=width * (grouped or heads),
            vocabulary=self._first("padded_vocab_size", "vocab_size"),
            positions=self._first("max_sequence_length", "seq_length", "max_position_embeddings", "n_positions"),
        )

    def _first(self, *keys: str) -> int:
        return next((value for key in keys if isinstance(value := self.config.get(key), int)), 0)


def anatomy(folder: Path, source: str) -> Anatomy:
    """Looks into a model folder. `source` is the name it goes by, in which a family may be recognised."""
    found = Anatomy(folder, source)
    try:
        found.config = read_config(folder)
        found.family = family_of(found.config, source)
        found.form = {"4bit": "int4", "8bit": "int8"}.get(quantisation_of(found.config, str(folder)), "")
    except StudioError as error:
        found.problems.append(error)
        if error.code == "base-is-adapter":
            return found
    found.files, problems = survey_weights(folder)
    found.problems += problems
    for file in found.files:
        try:
            found.headers[file] = tensor_headers(file)
        except StudioError as error:
            found.problems.append(error)
    if is_prefix(found):
        found.problems = [StudioError("base-is-adapter", folder=str(folder), base="?")]
    if found.family is not None:
        found.form = found.form or _form(found, found.family)
    return found


def is_prefix(found: Anatomy) -> bool:
    """A checkpoint of P-Tuning v2 has the files of a model, but is an adapter."""
    return bool(found.tensors) and all(".prefix_encoder." in name for name in found.tensors)


def _form(found: Anatomy, family: Family) -> str:
    if found.source == "embedded":
        return found.source
    if WRAPPED_HEAD in found.tensors or (found.folder / RECORD).is_file():
        return "merged"
    return family.form(found.config)
