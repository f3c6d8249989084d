"""The end of a run whose dev loss gets no better. Knows Trainer's events and how often it got no better; no loss."""

from typing import Any

from transformers import TrainerCallback


class EarlyStop(TrainerCallback):
    """Ends training behind `patience` evaluations in a row without a better dev loss; 0: never.

    `missed` evaluations in a row were without one already, as the records of a run that goes on tell. (transformers'
    own callback counts by the best loss in trainer_state.json, which falls behind where a sitting ends in between.)
    """

    def __init__(self, patience: int, missed: int) -> None:
        self._patience = patience
        self._missed = missed

    @property
    def due(self) -> bool:
        return 0 < self._patience <= self._missed

    def count(self, better: bool) -> bool:
        """Takes one more evaluation; whether training ends with it."""
        self._missed = 0 if better else self._missed + 1
        return self.due

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= self.due

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Behind an evaluation that ends the run nothing is recorded any more.
        control.should_log |= control.should_evaluate and 0 < self._patience <= self._missed + 1

    on_epoch_end = on_step_end

    # A run that broke off between that evaluation and its end makes no more step.
    on_train_begin = on_evaluate
