"""From logits to the next token of each row: the likeliest one, or one drawn with temperature and top-p.

Knows no model, no text and no batch order. Never touches torch's global generator: dropout of a running training lives
on that one.
"""

from collections.abc import Sequence

import torch

from glmstudio.settings import GenerationSettings


class Sampler:
    """Picks for rows by number. Each row draws from a generator of its own, so its answer is the same in any batch."""

    def __init__(self, settings: GenerationSettings, rows: int) -> None:
        self._temperature = settings.temperature
        self._top_p = settings.top_p
        drawn = rows if settings.temperature > 0 else 0
        self._generators = [torch.Generator().manual_seed(settings.seed + row) for row in range(drawn)]

    def pick(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """The next token of each of the b rows numbered `rows`; `logits` (b, vocabulary) of any floating dtype."""
        if not self._generators:
            # torch's own takes 15 times as long on a CPU.
            return (logits.float().numpy() if logits.device.type == "cpu" else logits).argmax(-1).tolist()
        points = torch.cat([torch.rand(1, generator=self._generators[row]) for row in rows])
        return draw(logits, points.to(logits.device), self._temperature, self._top_p).tolist()


def draw(logits: torch.Tensor, points: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Tokens (b,) int64 at `points` (b,) in [0, 1) of the cumulative distribution, likeliest tokens first.

    `logits` (b, vocabulary). The distribution is softmax(logits / temperature) cut to the fewest tokens that together
    reach `top_p` (nucleus sampling, Holtzman et al. 2019) and scaled back to 1; the likeliest token always stays.
    """
    probabilities, order = (logits.float() / temperature).softmax(dim=-1).sort(dim=-1, descending=True)
    reached = probabilities.cumsum(dim=-1)
    kept = (reached - probabilities < top_p).sum(dim=-1, keepdim=True)
    mass = reached.gather(-1, kept - 1)
    place = (reached <= points[:, None] * mass).sum(dim=-1, keepdim=True)
    # Rounding may put a point behind the last kept token.
    return order.gather(-1, torch.minimum(place, kept - 1))[:, 0]
