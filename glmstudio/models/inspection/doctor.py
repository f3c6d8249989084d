"""What a model is and whether it would load, answer and train here, told without loading its weights.

Knows no words: problems are StudioErrors, everything else numbers and codes.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmstudio.errors import StudioError
from glmstudio.models.devices import chosen_device, chosen_dtype, dtype_reason, free_memory
from glmstudio.models.families.family import Family
from glmstudio.models.inspection.anatomy import NO_PARAMETER, Anatomy, anatomy
from glmstudio.models.inspection.memory_needs import FITS, Needs, fitting, memory_needs
from glmstudio.models.inspection.tensor_check import tensor_problems
from glmstudio.models.loading import TOKENIZER_FILES, load_tokenizer
from glmstudio.models.prompts.dialogue import dialogue_of, end_ids
from glmstudio.models.sources import folder_here
from glmstudio.models.supported import unsupported_folder
from glmstudio.models.vocabularies.vocabulary_fit import refuse_larger_vocabulary, tokens_in_use
from glmstudio.settings import QUANTIZATIONS

NEXT_STEPS = ("mend", "use", "quantise", "untrained", "answer", "too-large")
TRAINING = FITS[:2]
FUSED = "query_key_value."
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Conversion:
    """What loading an original form does: tensors that get another name, fused ones that fall into three."""

    renamed: int
    split: int


@dataclass(frozen=True)
class TokenizerState:
    """`tokens` can come from text, of `rows` that the embedding has. `stops` are the tokens that end an answer, with
    their ids. `styles` are the prompt styles that can be used."""

    kind: str
    tokens: int
    rows: int
    stops: dict[str, int]
    styles: tuple[str, ...]


@dataclass(frozen=True)
class Diagnosis:
    """Sizes are bytes. `family` and `form` are "" where the config names none that is known; `form` is one of
    `anatomy.FORMS`. `dtypes` counts numbers by type. `needs` by quantization, only "none" for packed files.
    `dtype_reason` is why, as `devices.DTYPE_REASONS`.
    `fits` what there is memory for, as `memory_needs.FITS`, or "untrained" where `untrained` says why it only answers.
    `next_step` is one of `NEXT_STEPS`. `verified` counts the files whose sha256 was found right, None where it was not
    asked for."""

    source: str
    folder: Path
    family: str
    title: str
    form: str
    parameters: int
    bytes_on_disk: int
    dtypes: dict[str, int]
    conversion: Conversion | None
    tokenizer: TokenizerState | None
    device: str
    dtype: str
    dtype_reason: str
    free: int
    needs: dict[str, Needs]
    fits: dict[str, str]
    problems: list[StudioError]
    untrained: StudioError | None
    verified: int | None
    next_step: str


def examine(source: str | Path, *, device: str = "auto", dtype: str = "auto", verify: bool = False) -> Diagnosis:
    """Looks at the model `source`: "embedded", a folder, or a hub id that was downloaded before.

    `verify` reads every file whose sha256 the hub's cache knows. Raises StudioError `base-missing`,
    `doctor-not-here` for a hub id that is not on this machine, `device-unavailable`, `dtype-unknown`.
    """
    where = chosen_device(device)
    kind = chosen_dtype(dtype, where)
    found = anatomy(_folder(str(source)), str(source))
    problems = list(found.problems)
    if found.family is not None and not any(problem.code == "base-quantized" for problem in problems):
        problems += tensor_problems(found)
    untrained = unsupported_folder(found.folder, found.family, str(source)) if found.family and not problems else None
    problems += [untrained] if untrained and untrained.code == "family-cache" else []
    tokenizer, wrong = _tokenizer(found)
    problems += wrong
    verified = None
    if verify:
        verified, wrong = _verified(found.folder)
        problems += wrong
    free = free_memory(where)
    wishes = QUANTIZATIONS[:1] if found.form in ("int4", "int8") else QUANTIZATIONS
    sizes = {"number_bytes": kind.itemsize, "device": where.type}
    needs = {wish: memory_needs(found, quantization=wish, **sizes) for wish in wishes}
    fits = {wish: fitting(need, free, trains=untrained is None) for wish, need in needs.items()}
    return Diagnosis(
        source=str(source),
        folder=found.folder,
        family=found.family.name if found.family else "",
        title=found.family.title if found.family else "",
        form=found.form,
        parameters=found.parameters,
        bytes_on_disk=found.bytes_on_disk,
        dtypes=_dtypes(found),
        conversion=_conversion(found),
        tokenizer=tokenizer,
        device=str(where),
        dtype=str(kind).removeprefix("torch."),
        dtype_reason=dtype_reason(kind, where),
        free=free,
        needs=needs,
        fits=fits,
        problems=problems,
        untrained=untrained,
        verified=verified,
        next_step="mend" if problems else _next_step(fits),
    )


def _folder(source: str) -> Path:
    folder = folder_here(source)
    if folder is None:
        raise StudioError("doctor-not-here", source=source)
    return folder


def _dtypes(found: Anatomy) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for name, header in found.tensors.items():
        if not NO_PARAMETER.search(name):
            counted[header.dtype] += header.numel
    return dict(counted.most_common())


def _conversion(found: Anatomy) -> Conversion | None:
    if found.family is None or not found.family.converted or FUSED not in "".join(found.tensors):
        return None
    names = [name for name in found.tensors if not NO_PARAMETER.search(name)]
    split = sum(FUSED in name for name in names)
    return Conversion(renamed=len(names) - split, split=split)


def _tokenizer(found: Anatomy) -> tuple[TokenizerState | None, list[StudioError]]:
    if found.family is None or not any((found.folder / name).is_file() for name in TOKENIZER_FILES):
        return None, [] if found.family is None else [StudioError("no-tokenizer")]
    try:
        tokenizer = load_tokenizer(found.folder)
    except StudioError as error:
        return None, [error]
    rows = found.shape.vocabulary
    ids = sorted(end_ids(tokenizer, found.family, None))
    stops = dict(zip(tokenizer.convert_ids_to_tokens(ids), ids, strict=True))
    state = TokenizerState(
        type(tokenizer).__name__, tokens_in_use(tokenizer), rows, stops, _styles(tokenizer, found.family)
    )
    if tokenizer.eos_token_id is None:
        return state, [StudioError("no-end-token")]
    try:
        refuse_larger_vocabulary(tokenizer, rows, str(found.folder))
    except StudioError as error:
        return state, [error]
    return state, []


def _styles(tokenizer: Any, family: Family) -> tuple[str, ...]:
    try:
        dialogue_of(tokenizer, family)
    except StudioError:
        return ("instruction",)
    return ("instruction", "chat")


def _verified(folder: Path) -> tuple[int, list[StudioError]]:
    """The hub's cache calls a file by its sha256 where the hub knows it: (files that hold what they should, others)."""
    right, wrong = 0, []
    for path in sorted(folder.iterdir()):
        expected = path.resolve().name
        if not (path.is_file() and SHA256.fullmatch(expected)):
            continue
        with path.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if actual == expected:
            right += 1
        else:
            wrong.append(StudioError("file-checksum", file=str(path.resolve()), expected=expected, actual=actual))
    return right, wrong


def _next_step(fits: Mapping[str, str]) -> str:
    if fits["none"] in TRAINING:
        return "use"
    if any(fit in TRAINING for fit in fits.values()):
        return "quantise"
    if "untrained" in fits.values():
        return "untrained"
    return "answer" if "answer" in fits.values() else "too-large"
