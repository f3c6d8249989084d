"""Curves and figures: what is drawn, what is left out, and that a long run stays light."""

import json
import random
from types import SimpleNamespace

import pytest

from glmstudio.ui.charts import MOST_POINTS, Curve, drawn_counts, figure, growth, smooth, smoothing_weight, thin
from glmstudio.ui.live_figure import drawn

WORDS = {"train": "训练损失", "smoothed": "训练损失（平滑）", "dev": "验证损失", "step": "步", "loss": "损失"}


def record(kind, step, **values):
    return SimpleNamespace(kind=kind, step=step, epoch=0.0, time=0.0, values=values)


def filled(run_id="run-0001", steps=10):
    curve = Curve(run_id)
    curve.extend(record("train", step, loss=5.0 / step) for step in range(1, steps + 1))
    curve.extend(record("eval", step, loss=6.0 / step) for step in range(5, steps + 1, 5))
    return curve


def test_a_curve_takes_losses_of_both_kinds_and_nothing_else():
    curve = Curve("run-0001")
    assert not curve.extend([record("system", 1, memory_bytes=7), record("event", 1, code="saved")])
    assert not curve.extend([record("train", 1, loss=float("nan")), record("train", 1, learning_rate=1e-3)])
    assert curve.extend([record("train", 2, loss=3.5), record("eval", 2, loss=4)])
    assert (curve.train_steps, curve.train_losses) == ([2], [3.5])
    assert (curve.dev_steps, curve.dev_losses) == ([2], [4.0])


@pytest.mark.parametrize("most", [4, 50, 600])
def test_thinning_keeps_first_last_lowest_and_highest(most):
    noise = random.Random(0)
    xs = list(range(10_000))
    ys = [10 / (1 + x / 100) + noise.random() for x in xs]
    ys[7_777], ys[1_234] = 99.0, -3.0
    thin_xs, thin_ys = thin(xs, ys, most)
    assert len(thin_xs) <= most
    assert (thin_xs[0], thin_ys[0], thin_xs[-1], thin_ys[-1]) == (0, ys[0], 9_999, ys[-1])
    assert (max(thin_ys), min(thin_ys)) == (99.0, -3.0)
    assert thin_xs == sorted(set(thin_xs))
    assert all(ys[x] == y for x, y in zip(thin_xs, thin_ys, strict=True))


def test_a_short_curve_is_not_thinned():
    assert thin([1, 2, 3], [3.0, 1.0, 2.0]) == ([1, 2, 3], [3.0, 1.0, 2.0])


def test_smoothing_starts_at_the_first_loss_and_follows_a_constant():
    assert smooth([4.0, 4.0, 4.0], 0.9) == pytest.approx([4.0, 4.0, 4.0])
    assert smooth([2.0, 8.0], 0.5) == pytest.approx([2.0, 6.0])
    assert smooth([2.0, 8.0], 0.0) == pytest.approx([2.0, 8.0])
    assert smoothing_weight(40) == 0.0
    assert smoothing_weight(400) == pytest.approx(0.9)


def test_one_run_shows_train_and_dev_in_the_words_given():
    shown = json.loads(figure([("run 1", filled())], WORDS).to_json())
    assert [trace["name"] for trace in shown["data"]] == ["训练损失", "验证损失"]
    assert shown["data"][0]["x"] == list(range(1, 11))
    assert shown["data"][1]["y"] == pytest.approx([1.2, 0.6])
    assert shown["layout"]["xaxis"]["title"]["text"] == "步"


@pytest.mark.parametrize("runs", [1, 2])
def test_a_single_point_is_seen(runs):
    shown = figure([(f"run {number}", filled(str(number), steps=1)) for number in range(runs)], WORDS)
    assert all("markers" in trace.mode for trace in shown.data)


def test_a_long_run_gets_a_smoothed_line_and_stays_light():
    text = figure([("run 1", filled(steps=10_000))], WORDS).to_json()
    shown = json.loads(text)
    assert [trace["name"] for trace in shown["data"]] == ["训练损失", "训练损失（平滑）", "验证损失"]
    assert all(len(trace["x"]) <= MOST_POINTS for trace in shown["data"])
    assert len(text) < 100_000


def test_zoom_belongs_to_a_choice_of_runs():
    first, second = filled("run-0001"), filled("run-0002")
    alone = figure([("run 1", first)], WORDS).layout.uirevision
    first.extend([record("train", 11, loss=0.1)])
    assert figure([("run 1", first)], WORDS).layout.uirevision == alone
    assert figure([("run 2", second)], WORDS).layout.uirevision != alone


def test_several_runs_have_one_colour_each_and_their_names():
    shown = figure([("run 1", filled("run-0001")), ("run 2", filled("run-0002"))], WORDS)
    assert [trace.name for trace in shown.data] == [
        "run 1 · 训练损失", "run 1 · 验证损失", "run 2 · 训练损失", "run 2 · 验证损失",
    ]  # fmt: skip
    colours = [trace.line.color for trace in shown.data]
    assert colours[0] == colours[1] != colours[2] == colours[3]


def test_a_page_gets_the_points_that_came_since():
    one, two = filled("a", steps=200), filled("b", steps=100)
    curves = [("run a", one), ("run b", two)]
    drawn = drawn_counts(curves)
    one.extend([record("train", 201, loss=0.5), record("eval", 201, loss=0.7)])
    assert growth(curves, drawn, drawn) == [[[201], [0.5], [201], [0.7]], [[], [], [], []]]
    assert growth(curves, drawn, drawn_counts(curves)) == [[[], [], [], []], [[], [], [], []]]


def test_a_page_finds_each_line_again_by_its_run():
    shown = drawn(figure([("run 1", filled("run-0001", steps=200))], WORDS), {})
    assert [trace["uid"] for trace in shown["figure"]["data"]] == [
        "run-0001 train",
        "run-0001 smoothed",
        "run-0001 dev",
    ]


@pytest.mark.parametrize("steps", [10, 59])
def test_a_short_curve_is_drawn_anew(steps):
    curve = filled(steps=steps)
    drawn = drawn_counts([("run", curve)])
    curve.extend([record("train", steps + 1, loss=1.0)])
    assert growth([("run", curve)], drawn, drawn) is None


def test_a_curve_that_has_grown_by_half_is_drawn_anew():
    curve = filled(steps=200)
    first = drawn_counts([("run", curve)])
    curve.extend(record("train", step, loss=1.0) for step in range(201, 301))
    assert growth([("run", curve)], first, "250.40") is not None
    curve.extend([record("train", 301, loss=1.0)])
    assert growth([("run", curve)], first, "250.40") is None


@pytest.mark.parametrize("now", ["", "300.40", "200.50", "200.40 3.4", "x", "1"])
def test_what_a_page_cannot_have_is_drawn_anew(now):
    curve = filled(steps=200)
    assert growth([("run", curve)], "200.40", now) is None
