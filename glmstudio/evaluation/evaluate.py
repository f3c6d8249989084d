"""Answers to a set of rows by the base and an adapter, and their scores. Knows no page and no file.

Both models answer the same rows, so their answers can be held against each other; all are in work at the same time, as
many as fit, and where an answer ends the next row takes its place.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from glmstudio.data.example import Example
from glmstudio.errors import StudioError
from glmstudio.evaluation.scores import score
from glmstudio.inference.compare import answer_text
from glmstudio.inference.engine import answers
from glmstudio.inference.rows import Row
from glmstudio.models.adapters.adapter_ref import AdapterRef
from glmstudio.models.chat_format import render_prompt
from glmstudio.settings import GenerationSettings

if TYPE_CHECKING:
    from glmstudio.models.adapters.adapter_version import AdapterPrompt
    from glmstudio.models.base import Base
    from glmstudio.models.resident import Resident

COLUMNS = ("base", "tuned")
# The reasons of an answer whose end is missing: its limit, or that of the model.
CUT = ("length", "positions")
BATCH_ROWS = 64
CACHE_BYTES = 2 * 1024**3


def evaluate(
    resident: "Resident",
    adapters: Sequence[str],
    examples: Sequence[Example],
    settings: GenerationSettings,
    *,
    max_source_length: int,
    style: str = "instruction",
    on_progress: Callable[[int, int], None] | None,
    should_stop: Callable[[], bool],
    batch_rows: int | None = None,
) -> dict[str, Any]:
    """Scores and whole answers of one or two `adapters`: the first fills the column `base`, the second `tuned`.

    Gives `base` and `tuned` (totals as in `scores.score` and `finish_reasons` counted; None without a second adapter),
    `rows` (`instruction`, `input`, `target`, `base`, `tuned`, in the examples' order, and as `cut` the columns whose
    answer reached the limit), `total`, `cancelled` and the limit `max_new_tokens`. When
    `should_stop` ends it, `rows` holds what every adapter has answered. `batch_rows` bounds the answers in work at a
    time, by default so that their cache stays under 2 GiB. `on_progress(done, total)` counts examples, each as its last
    answer ends.
    Raises StudioError `evaluate-empty`, and what rendering and generating raise.
    """
    if not examples:
        raise StudioError("evaluate-empty")
    base = resident.base
    rendered = [
        render_prompt(
            base.tokenizer, base.family, row.instruction, row.input, max_source_length=max_source_length, style=style
        )
        for row in examples
    ]
    prompts, head = [prompt.ids for prompt in rendered], rendered[0].answer_head
    prefix = max((states.shape[-2] for states in resident.prefixes(adapters) if states is not None), default=0)
    limit = batch_rows or _rows_that_fit(resident, prefix + max(map(len, prompts)) + settings.limit)
    rows = [Row(ids, adapter) for ids in prompts for adapter in adapters]
    texts: dict[int, dict[int, tuple[str, str]]] = {}
    finished: dict[int, list[tuple[str, str]]] = {}
    for answer in answers(resident, rows, settings, max_rows=limit, should_stop=should_stop):
        place, column = divmod(answer.number, len(adapters))
        said = texts.setdefault(place, {})
        said[column] = (answer_text(base.tokenizer, answer.ids, head), answer.finish_reason)
        if len(said) == len(adapters):
            finished[place] = [said[column] for column in range(len(adapters))]
            if on_progress is not None:
                on_progress(len(finished), len(examples))
    return _report(examples, finished, len(adapters)) | {"max_new_tokens": settings.limit}


def answered_by(base: "Base", prompt: "AdapterPrompt", ref: AdapterRef | None) -> dict[str, Any]:
    """Who has answered, for the record of an evaluation: base, how both were asked, the adapter's content and step."""
    found = ref or AdapterRef("", "")
    dtype = str(base.dtype).removeprefix("torch.")
    return {
        "base": {"source": base.source, "family": base.family.name, "dtype": dtype, "quantization": base.quantization},
        "prompt_style": prompt.style,
        "max_source_length": prompt.max_source_length,
        "digest": found.digest,
        "step": found.step,
    }


def _rows_that_fit(resident: "Resident", tokens: int) -> int:
    """How many rows of so many tokens keep keys and values under `CACHE_BYTES`, at most `BATCH_ROWS`."""
    config = resident.base.model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token_bytes = 2 * config.num_hidden_layers * heads * head_dim * resident.base.dtype.itemsize
    return max(1, min(BATCH_ROWS, CACHE_BYTES // (tokens * token_bytes)))


def _report(examples: Sequence[Example], finished: dict[int, list[tuple[str, str]]], columns: int) -> dict[str, Any]:
    totals: dict[str, Any] = dict.fromkeys(COLUMNS)
    for column, name in enumerate(COLUMNS[:columns]):
        pairs = [(examples[place].target, finished[place][column][0]) for place in finished]
        reasons = Counter(finished[place][column][1] for place in finished)
        totals[name] = score(pairs) | {"finish_reasons": dict(reasons)}
    rows = []
    for place in sorted(finished):
        example, texts = examples[place], [text for text, _ in finished[place]]
        cut = [name for name, (_, reason) in zip(COLUMNS, finished[place], strict=False) if reason in CUT]
        row = {"instruction": example.instruction, "input": example.input, "target": example.target, "cut": cut}
        rows.append(row | dict.fromkeys(COLUMNS) | dict(zip(COLUMNS, texts, strict=False)))
    return totals | {"rows": rows, "total": len(examples), "cancelled": len(finished) < len(examples)}
