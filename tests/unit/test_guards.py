"""Which losses end a run: those that are no numbers, and those that run away; never those that only scatter."""

import json
import math
import random

import pytest

from glmstudio.errors import StudioError
from glmstudio.training.guards import IN_A_ROW, LossGuard, StepGuard
from glmstudio.ui.language import LANGUAGES, error_text


def first_alarm(losses: list[float]) -> int | None:
    """The 1-based step at which a run with these losses is stopped."""
    guard = LossGuard()
    return next((step for step, loss in enumerate(losses, start=1) if guard.diverges(loss)), None)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("spread", [0.2, 0.6, 1.0])
def test_scatter_is_no_alarm(seed: int, spread: float) -> None:
    """Log-normal losses of single rows, a learned level and a tail of hard rows beside it, for 2,000 steps."""
    dice = random.Random(seed)
    losses = []
    for step in range(2000):
        level = 0.05 + 3 * math.exp(-step / 200)
        hard = 20 if dice.random() < 0.05 else 1
        losses.append(level * hard * math.exp(dice.gauss(0, spread)))
    assert first_alarm(losses) is None


def test_hard_rows_that_come_again_are_no_alarm() -> None:
    epoch = [0.4] * 12 + [1.9, 2.1, 2.0] + [0.4] * 5
    assert first_alarm(epoch * 5) is None


@pytest.mark.parametrize("level", [3.9, 0.3])
def test_a_level_less_than_doubled_or_still_low_is_no_alarm(level: float) -> None:
    assert first_alarm([level / 2, level / 1.9] * 10 + [level] * 100) is None
    assert first_alarm([0.01] * 30 + [1.9] * 100) is None


# Two kinds of rows, one at a time, as the base finds them and soon learns them: a run of the demonstration.
NOISY = [2.6, 4.4, 2.1, 10.7, 13.1, 3.0, 1.7, 15.5, 13.2, 12.0, 1.8, 2.1, 1.7, 15.0, 1.8, 2.5, 9.9, 2.9, 9.5, 7.7, 7.1]
NOISY += [0.9, 2.2, 6.4, 8.0, 1.3, 1.3, 7.6, 0.9, 1.3, 5.4, 0.8, 5.8, 3.9, 1.1, 0.9, 4.0, 1.2, 0.7, 1.1, 0.7, 5.0, 2.1]
LEARNED = [0.4, 0.1, 2.6, 0.2, 2.1, 0.0, 1.3, 0.2, 0.6, 0.0] * 6


def test_a_run_that_only_began_with_high_losses() -> None:
    assert first_alarm(NOISY + LEARNED) is None
    # It diverges to no more than it began with.
    assert first_alarm(NOISY + LEARNED + [6.0, 5.1, 7.5, 4.4] * 5) == len(NOISY) + len(LEARNED) + IN_A_ROW


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ([3.0] * 20 + [9.0] * 10, 20 + IN_A_ROW),
        # A climb: its first steps are not twice the median yet.
        ([2.0] * 30 + [2.5, 3.5, 5.0, 6.0, 7.5, 7.0, *[8.0] * 10], 32 + IN_A_ROW),
        # A spike that was higher does not hide it.
        ([3.0] * 12 + [17.0] + [3.0] * 12 + [9.0] * 10, 25 + IN_A_ROW),
        # Behind too few others it is not told from a high beginning.
        ([3.0] * 4 + [9.0] * 30, None),
    ],
)
def test_where_a_run_that_diverges_is_stopped(losses: list[float], step: int | None) -> None:
    assert first_alarm(losses) == step


def test_a_guard_that_goes_on_judges_as_one_that_was_never_gone() -> None:
    losses, alarm = [3.0 + 0.1 * (step % 7) for step in range(40)] + [9.0] * IN_A_ROW, 40 + IN_A_ROW - 1
    for cut in (5, 39, 45):
        former, later = LossGuard(), LossGuard()
        assert not any(map(former.diverges, losses[:cut]))
        later.restore(json.loads(json.dumps(former.state)))
        assert [later.diverges(loss) for loss in losses[cut:alarm]] == [False] * (alarm - cut)
        assert later.diverges(losses[alarm])
        assert later.level == pytest.approx(3.3, abs=0.05)


@pytest.mark.parametrize(
    ("number", "step", "fp16", "code"),
    [
        (math.nan, 7, False, "loss-not-finite"),
        (-math.inf, 7, True, "loss-not-finite-fp16"),
        (math.inf, 1, False, "loss-not-finite-base"),
    ],
)
def test_numbers_that_are_none_name_step_rows_and_advice(number: float, step: int, fp16: bool, code: str) -> None:
    guard = StepGuard([31, 32, 40, 57], rate=2e-4, fp16=fp16)
    guard.begin(step, [3, 0])
    for error in (guard.of_loss(number), guard.of_number(number)):
        assert error.code == code
        assert (error.params["step"], error.params["rows"]) == (step, [57, 31])
        if code != "loss-not-finite-base":
            assert (error.params["rate"], error.params["lower"]) == ("0.0002", "2e-05")
        for language in LANGUAGES:
            assert "57, 31" in error_text(error, language)
    assert guard.of_loss(1.0) is guard.of_number(1.0) is guard.of_dev_loss(step, 1.0) is None
    assert guard.of_dev_loss(step, number).code == "dev-loss-not-finite"


def test_many_rows_are_not_all_named() -> None:
    text = error_text(StudioError("loss-not-finite-base", step=1, rows=list(range(100, 200))), "en")
    assert "100, 101," in text
    assert "131…" in text
