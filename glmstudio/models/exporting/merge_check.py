"""Whether a merged model says what base and adapter said: logits of a few prompts, held against each other.

Knows a model and token ids; knows no file, no prompt style and no adapter.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

FLOAT32_TOLERANCE = 2e-5
# Shown where the caller has no rows of its own: (instruction, input).
PROMPTS = (
    ("Extract the facts of the text as a JSON list of triples.", "Marie Curie was born in Warsaw in 1867."),
    ("抽取文本中的实体关系，用 JSON 数组回答。", "《红楼梦》的作者是曹雪芹，成书于清代。"),
    ("Write one sentence about rain.", ""),
)


@dataclass(frozen=True)
class MergeCheck:
    """Merged against base and adapter, over all positions of all prompts; logits are centred at each position, which
    changes no probability.

    `rms` and `max_abs` are of the difference; `relative` is `rms` divided by the root mean square of the logits of base
    and adapter, and must not exceed `tolerance`. `effect` is the same measure between base and adapter, and base alone:
    a merge whose `relative` is not well below it has lost the adapter in rounding. `argmax_agreement` is the share of
    positions with the same most likely token.
    """

    passed: bool
    relative: float
    tolerance: float
    rms: float
    max_abs: float
    effect: float
    argmax_agreement: float
    positions: int
    prompts: int
    dtype: str

    @property
    def carries_adapter(self) -> bool:
        """Whether the merged model is nearer to base and adapter than the base alone is, by a factor of two."""
        return self.effect == 0 or 2 * self.relative < self.effect

    def shown(self) -> dict[str, object]:
        """The numbers as the page and the command line write them."""
        powers = ("relative", "tolerance", "rms", "max_abs", "effect")
        whole = {"same": f"{self.argmax_agreement:.2%}", "prompts": self.prompts, "dtype": self.dtype}
        return whole | {name: f"{getattr(self, name):.2e}" for name in powers}

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"carries_adapter": self.carries_adapter}


def logits_of(model: torch.nn.Module, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Logits (length, vocabulary) float32 on the CPU of each prompt's ids, one prompt at a time."""
    device = next(model.parameters()).device
    with torch.no_grad():
        return [model(input_ids=torch.tensor([ids], device=device)).logits[0].float().cpu() for ids in prompts]


def compared(
    base: Sequence[torch.Tensor],
    tuned: Sequence[torch.Tensor],
    merged: Sequence[torch.Tensor],
    limit: float,
    dtype: str,
) -> MergeCheck:
    """Holds the logits of the merged model against those of base and adapter, prompt by prompt."""
    length = sum(len(logits) for logits in tuned)
    size = _rms([_centred(logits) for logits in tuned])
    apart = [_centred(ours) - _centred(theirs) for ours, theirs in zip(merged, tuned, strict=True)]
    changed = [_centred(ours) - _centred(theirs) for ours, theirs in zip(base, tuned, strict=True)]
    same = sum(int((ours.argmax(-1) == theirs.argmax(-1)).sum()) for ours, theirs in zip(merged, tuned, strict=True))
    rms = _rms(apart)
    # A comparison with NaN is false, so a model that computes none of the numbers does not pass.
    return MergeCheck(
        passed=rms / size <= limit,
        relative=rms / size,
        tolerance=limit,
        rms=rms,
        max_abs=max(float(difference.abs().max()) for difference in apart),
        effect=_rms(changed) / size,
        argmax_agreement=same / length,
        positions=length,
        prompts=len(tuned),
        dtype=dtype,
    )


def tolerance(dtypes: Sequence[torch.dtype], linears: int) -> float:
    """How far the logits of a right merge may lie off, relative to their root mean square.

    Each of `linears` weights is rounded once, by at most half of eps(dtype) of itself; their errors are independent and
    add up like their square root, and those of the activations are about as large: eps * sqrt(linears). `dtypes` are
    those of base and merged; the coarser counts. Float32 is bounded by the order of sums instead: 2e-5 for all sizes.
    """
    coarse = max(torch.finfo(dtype).eps for dtype in dtypes)
    return max(FLOAT32_TOLERANCE, coarse * linears**0.5)


def _centred(logits: torch.Tensor) -> torch.Tensor:
    return logits - logits.mean(-1, keepdim=True)


def _rms(values: Sequence[torch.Tensor]) -> float:
    total = sum(float(value.double().square().sum()) for value in values)
    return (total / sum(value.numel() for value in values)) ** 0.5
