"""Metric records → curves → a plotly figure. Pure: knows no component, no file and no language (words are passed in).

Colours are mid tones that read on white and on black; text, grid and background are left to the page's own scheme.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from glmstudio.training.metrics import MetricRecord

MOST_POINTS = 600
# So many points of a train curve are seen one by one; a single one has no line at all.
MOST_MARKED = 40
TRAIN_COLOUR, DEV_COLOUR = "#4f7df0", "#e8833a"
RUN_COLOURS = ("#4f7df0", "#e8833a", "#2fa67a", "#b667d6", "#d8574f", "#8a8f3c", "#3aa3b8", "#a0785a")


@dataclass
class Curve:
    """The losses of one run: (step, loss) lists that grow. A loss that is no number is left out."""

    run_id: str
    train_steps: list[int] = field(default_factory=list)
    train_losses: list[float] = field(default_factory=list)
    dev_steps: list[int] = field(default_factory=list)
    dev_losses: list[float] = field(default_factory=list)

    def extend(self, records: Iterable["MetricRecord"]) -> bool:
        """Takes the losses of new records; True where one came."""
        grew = False
        for record in records:
            loss = record.values.get("loss")
            if record.kind not in ("train", "eval") or not isinstance(loss, int | float) or not math.isfinite(loss):
                continue
            train = record.kind == "train"
            (self.train_steps if train else self.dev_steps).append(record.step)
            (self.train_losses if train else self.dev_losses).append(float(loss))
            grew = True
        return grew

    @property
    def size(self) -> int:
        return len(self.train_steps) + len(self.dev_steps)


def thin(xs: Sequence[int], ys: Sequence[float], most: int = MOST_POINTS) -> tuple[list[int], list[float]]:
    """At most `most` (≥ 4) points in order: the first, the last, and the lowest and highest of equal stretches between,
    so that no peak is lost."""
    count = len(xs)
    if count <= most:
        return list(xs), list(ys)
    buckets = (most - 2) // 2
    kept = {0, count - 1}
    for bucket in range(buckets):
        stretch = range(count * bucket // buckets, count * (bucket + 1) // buckets)
        kept.add(min(stretch, key=ys.__getitem__))
        kept.add(max(stretch, key=ys.__getitem__))
    order = sorted(kept)
    return [xs[index] for index in order], [ys[index] for index in order]


def smooth(ys: Sequence[float], weight: float) -> list[float]:
    """The exponential mean of `ys`, its start corrected (Adam's bias correction): the first value is the first loss."""
    mean, out = 0.0, []
    for count, value in enumerate(ys, start=1):
        mean = weight * mean + (1 - weight) * value
        out.append(mean / (1 - weight**count))
    return out


def smoothing_weight(count: int) -> float:
    """Remembers about a fortieth of the curve: a short run is left as it is, a long one reads as a line."""
    return max(0.0, 1 - 40 / count) if count > 40 else 0.0


# Until a train curve has so many points it is drawn anew as a whole.
_SMALL = 60


def drawn_counts(curves: Sequence[tuple[str, Curve]]) -> str:
    """How many train and dev losses of each curve are drawn, as a page tells it: "120.4 80.2"."""
    return " ".join(f"{len(curve.train_steps)}.{len(curve.dev_steps)}" for _, curve in curves)


def growth(curves: Sequence[tuple[str, Curve]], at_first: str, now: str) -> list[list[Any]] | None:
    """What came since a page has drawn `now` (see `drawn_counts`): of each curve the steps and losses of train, then of
    dev. None where the figure is to be made anew, because it was made of a much smaller curve, `at_first`, or of
    another one: the smoothing and what is left out follow the length."""
    first, have = (_counts(text) for text in (at_first, now))
    if not len(first) == len(have) == len(curves):
        return None
    grown = []
    for (_, curve), (train_first, _), (train, dev) in zip(curves, first, have, strict=True):
        count = len(curve.train_steps)
        if train > count or dev > len(curve.dev_steps) or (count > train and count > max(_SMALL, 1.5 * train_first)):
            return None
        if count > train and train_first < _SMALL:
            return None
        grown.append(
            [curve.train_steps[train:], curve.train_losses[train:], curve.dev_steps[dev:], curve.dev_losses[dev:]]
        )
    return grown


def _counts(text: str) -> list[tuple[int, int]]:
    """Empty for what is none."""
    found = re.fullmatch(r"(\d+\.\d+ )*\d+\.\d+", text)
    return [tuple(map(int, pair.split("."))) for pair in text.split()] if found else []


def figure(curves: Sequence[tuple[str, Curve]], words: Mapping[str, str]) -> "Figure":
    """(name, curve) of each run → loss over steps. One run shows every train loss behind its smoothed line; several
    show one smoothed line and one dev line each. `words`: train, smoothed, dev, step, loss."""
    from plotly.graph_objects import Figure

    alone = len(curves) == 1
    shown = Figure()
    for index, (name, curve) in enumerate(curves):
        colour = TRAIN_COLOUR if alone else RUN_COLOURS[index % len(RUN_COLOURS)]
        _add_train(shown, name, curve, words, colour=colour, alone=alone)
        _add_dev(shown, name, curve, words, colour=DEV_COLOUR if alone else colour, alone=alone)
    # One uirevision for one choice of runs: zoom and legend stay while points arrive, and start anew with other runs.
    shown.update_layout(
        uirevision="|".join(curve.run_id for _, curve in curves),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 52, "r": 12, "t": 26, "b": 38},
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        hovermode="x unified",
        xaxis={"title": {"text": words["step"], "standoff": 6}, "rangemode": "tozero", "zeroline": False},
        yaxis={"title": {"text": words["loss"], "standoff": 6}, "rangemode": "tozero", "zeroline": False},
    )
    return shown


def _add_train(shown: "Figure", name: str, curve: Curve, words: Mapping[str, str], *, colour: str, alone: bool) -> None:
    weight = smoothing_weight(len(curve.train_losses))
    # A trace's uid keeps a choice in the legend when the smoothed line joins later.
    if alone:
        steps, losses = thin(curve.train_steps, curve.train_losses)
        raw = {"color": colour, "width": 1} if weight else {"color": colour, "width": 2}
        uid = f"{curve.run_id} train"
        opacity = 0.4 if weight else 1
        shown.add_scatter(x=steps, y=losses, name=words["train"], uid=uid, line=raw, opacity=opacity, **_marked(steps))
    if weight or not alone:
        steps, losses = thin(curve.train_steps, smooth(curve.train_losses, weight))
        title = words["smoothed"] if alone else f"{name} · {words['train']}"
        line = {"color": colour, "width": 2}
        shown.add_scatter(x=steps, y=losses, name=title, uid=f"{curve.run_id} smoothed", line=line, **_marked(steps))


def _add_dev(shown: "Figure", name: str, curve: Curve, words: Mapping[str, str], *, colour: str, alone: bool) -> None:
    steps, losses = thin(curve.dev_steps, curve.dev_losses)
    title = words["dev"] if alone else f"{name} · {words['dev']}"
    line = {"color": colour, "width": 2, "dash": "solid" if alone else "dot"}
    uid = f"{curve.run_id} dev"
    shown.add_scatter(x=steps, y=losses, name=title, uid=uid, mode="lines+markers", line=line, marker={"size": 5})


def _marked(steps: Sequence[int]) -> dict[str, object]:
    """How a train curve of so many points is drawn."""
    return {"mode": "lines+markers", "marker": {"size": 4}} if len(steps) <= MOST_MARKED else {"mode": "lines"}
