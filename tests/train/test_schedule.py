"""The rates of a run's steps: the first one learns, warm-up leaves a step, and old checkpoints keep their own."""

from pathlib import Path

import pytest
import torch
from transformers import get_scheduler

from glmstudio.settings import SCHEDULERS, TrainingSettings
from glmstudio.training.schedule import Schedule, ScheduledRate
from tests.train.runs import TRAIN, records, run_in, weights


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)


def rates(scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[float]:
    """Of the next steps."""
    found = []
    for _ in range(steps):
        found += scheduler.get_last_lr()
        scheduler.optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 40])
def test_every_step_has_a_rate_and_one_has_the_full_one(kind: str, ratio: float, steps: int) -> None:
    schedule = Schedule.of(kind, ratio, steps)
    shares = [schedule(done) for done in range(steps)]
    assert min(shares) > 0
    assert max(shares) == 1.0
    rising = shares[: schedule.warmup + 1]
    assert rising == pytest.approx([(done + 1) / len(rising) for done in range(len(rising))])
    assert len(rising) == min(-(-ratio * steps // 1), steps - 1) + 1
    assert shares[schedule.warmup :] == sorted(shares[schedule.warmup :], reverse=True)


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_behind_the_warmup_it_is_transformers_own(kind: str) -> None:
    named = {"constant": "constant_with_warmup"}.get(kind, kind)
    theirs = get_scheduler(named, optimizer(), num_warmup_steps=6, num_training_steps=20)
    ours = ScheduledRate(optimizer(), kind, 0.3, 20)
    assert rates(ours, 20)[6:] == rates(theirs, 20)[6:]


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize(("ratio", "warmup"), [(0.5, 5), (1.0, 1), (0.0, 0)])
def test_a_run_of_an_older_version_goes_on_with_its_own_rates(kind: str, ratio: float, warmup: int) -> None:
    theirs = get_scheduler(kind, optimizer(), num_warmup_steps=warmup, num_training_steps=10)
    rates(theirs, 3)
    ours = ScheduledRate(optimizer(), kind, ratio, 10)
    ours.load_state_dict(theirs.state_dict())
    again = ScheduledRate(optimizer(), kind, ratio, 10)
    again.load_state_dict(ours.state_dict())
    assert rates(ours, 7) == rates(again, 7) == rates(theirs, 7)


def test_a_run_of_one_step_learns(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run", TrainingSettings(num_train_epochs=1, logging_steps=50), train_rows=TRAIN[:1])
    (record,) = records(tmp_path / "run", "train")
    assert (run.step, record.values["learning_rate"]) == (1, run.settings.learning_rate)
    assert all(value.any() for name, value in weights(tmp_path / "run" / "last").items() if ".lora_B." in name)
