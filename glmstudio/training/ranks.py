"""The processes that train one run together: which one this is, and what they tell each other. Knows no model.

Every process holds the whole base, or its part of each layer, and takes its share of the rows of each optimizer step.
Gradients are added up before the step is made, so that all of them hold the same adapter. The first one alone writes
the run's folder, which the others must see. Numbers and words go through gloo, gradients on a graphics card through
NCCL.
"""

import dataclasses
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from glmstudio.errors import StudioError
from glmstudio.training.runs import Run, RunFolder

# What accelerate's configuration switches on, and our own switch for the first: the Trainer would wrap the whole model
# where it finds accelerate's, trained adapter and all.
FSDP, DEEPSPEED, SHARDED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "GLMSTUDIO_SHARDED"
# The note on an error that all processes have.
SHARED = "in all processes"
# The others wait while the first one downloads a base. A process that dies ends them all, through their launcher.
PATIENCE = timedelta(days=2)


@dataclass(frozen=True)
class Ranks:
    """This process is number `index` of `count`. With one process everything here gives back what it got.

    With a base that is `sharded` a pass of one is a pass of all: they make equally many."""

    index: int = 0
    count: int = 1
    sharded: bool = False

    @property
    def first(self) -> bool:
        return self.index == 0

    def share(self, items: Sequence[Any]) -> list[Any]:
        """This process's part; of rows in order of length all get about as many tokens."""
        return list(items[self.index :: self.count])

    def sum(self, *numbers: float) -> tuple[float, ...]:
        """The sums over all processes, in float64."""
        if self.count == 1:
            return numbers
        total = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(total)
        return tuple(total.tolist())

    def missing(self, passes: int) -> int:
        """How many passes this process must add to its own, so that all make as many as the one that has the most."""
        if not self.sharded:
            return 0
        most = torch.tensor(passes)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most) - passes

    def wait(self) -> None:
        """Until all processes are here."""
        self.sum(0.0)

    def same(self, value: Any) -> Any:
        """The value that the first process has."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Every process gets the sum of the gradients; where it has none it adds zeros."""
        if self.count == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten().float() for parameter in trained])
        dist.all_reduce(flat)
        sizes = [parameter.numel() for parameter in trained]
        for parameter, total in zip(trained, flat.split(sizes), strict=True):
            parameter.grad.copy_(total.view_as(parameter))

    def copy_weights(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Every process gets the trained weights of the first."""
        if self.count == 1:
            return
        with torch.no_grad():
            for parameter in parameters:
                if parameter.requires_grad:
                    dist.broadcast(parameter.data, src=0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What fails within in one process fails in all of them, with that process's error; nobody waits for it."""
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            if self.count == 1:
                raise
            failure = error
        (failed,) = self.sum(failure is not None)
        if failed:
            found: list[Exception | None] = [None] * self.count
            dist.all_gather_object(found, _portable(failure))
            shared = failure or next(error for error in found if error is not None)
            shared.add_note(SHARED)
            raise shared

    def passing(self) -> AbstractContextManager[None]:
        """As `together`, for passes of the model. Those of a sharded base the others wait in, where they hear nothing:
        an error ends this process, and its launcher the others."""
        return nullcontext() if self.sharded else self.together()


class SharedWish:
    """The wish to stop, heard by all processes at the same place, where they exchange it; by one alone at once."""

    def __init__(self, here: Ranks, asked: Callable[[], bool]) -> None:
        self._here = here
        self._asked = asked
        self._agreed = False

    def __call__(self) -> bool:
        return self._asked() if self._here.count == 1 else self._agreed

    def exchange(self) -> None:
        (wishes,) = self._here.sum(float(self._asked()))
        self._agreed |= wishes > 0


def ranks() -> Ranks:
    """The processes that `launched` has joined; one alone where there are no others."""
    joined = dist.is_available() and dist.is_initialized()
    return Ranks(dist.get_rank(), dist.get_world_size(), _is_on(SHARDED)) if joined else Ranks()


def is_shared(error: BaseException) -> bool:
    """Whether the other processes end with this error, too, so that the first one can tell it."""
    return any(SHARED in getattr(found, "__notes__", ()) for found in (error, error.__cause__))


@contextmanager
def launched() -> Iterator[Ranks]:
    """Joins the processes that torchrun or `accelerate launch` has started, if this is one of them.

    Raises StudioError `launch-deepspeed`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if _is_on(DEEPSPEED):
        raise StudioError("launch-deepspeed")
    os.environ |= {SHARDED: str(_is_on(FSDP) or _is_on(SHARDED)), FSDP: "false"}
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    yield ranks()
    # Behind an error the others may be in the middle of something: the launcher ends them.
    dist.destroy_process_group()


def own_device(wish: str) -> str:
    """The device of this process: its own graphics card, where one is wished for or there are any.

    Raises StudioError `launch-devices` where there are fewer cards than processes on this machine.
    """
    local = os.environ.get("LOCAL_RANK")
    if local is None or int(os.environ.get("WORLD_SIZE", "1")) == 1 or wish == "cpu" or not torch.cuda.is_available():
        return wish
    here, cards = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if here > cards:
        raise StudioError("launch-devices", processes=here, devices=cards)
    return f"cuda:{local}"


class WatchedFolder(RunFolder):
    """The folder of a run in a process that is not the first: read as ever, written by nobody here."""

    @property
    def metrics_path(self) -> Path:
        return Path(os.devnull)

    @property
    def log_path(self) -> Path:
        return Path(os.devnull)

    def update(self, **changes: Any) -> Run:
        return dataclasses.replace(self.read(), **changes)

    def put(self, name: str, write: Any) -> None:
        """What `write` does together with the first process, which moves the folder into its place."""
        write(self.aside / name)

    def keep_newest(self, count: int) -> None:
        pass

    def keep_room(self) -> None:
        pass

    def discard_half_written(self) -> None:
        pass


def _is_on(switch: str) -> bool:
    return os.environ.get(switch, "false").lower() in ("true", "1")


def _portable(error: Exception | None) -> Exception | None:
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # Classes of other packages fail in their own ways.
        return RuntimeError(f"{type(error).__name__}: {error}")
