"""Flags that several commands have: settings as flags, base, root, old names, Ctrl+C. Knows no command."""

import argparse
import dataclasses
import signal
import sys
import threading
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glmstudio.settings import DTYPES, QUANTIZATIONS, SWITCHES, flag_name, switch
from glmstudio.ui.language import t
from glmstudio.workspace import repository_root

# Flags of the project that this one grew from, and names that people type from habit.
ALIASES = {
    "--batch-size": "--per-device-train-batch-size",
    "--save-freq": "--save-steps",
    "--max-source-seq-len": "--max-source-length",
    "--max-target-seq-len": "--max-target-length",
    "--save-dir": "--output-dir",
    "--rank": "--lora-rank",
}
# Switches that have a value, `True` or `False`, in older projects.
OLD_SWITCHES = {
    "--use-ptuning": ["--method", "ptuning"],
    "--use-lora": ["--method", "lora"],
    "--prefix-projection": ["--prefix-projection"],
}


def normalised(arguments: Sequence[str]) -> list[str]:
    """Flags with underscores become flags with hyphens, old names their new ones; values stay as they are."""
    result: list[str] = []
    words = list(arguments)
    while words:
        name, equals, value = words.pop(0).partition("=")
        if name.startswith("--"):
            name = name.replace("_", "-")
            name = ALIASES.get(name, name)
        if name in OLD_SWITCHES:
            if not equals and words and words[0].lower() in ("true", "false"):
                value = words.pop(0)
            result += [] if value.lower() == "false" else OLD_SWITCHES[name]
        else:
            result.append(name + equals + value)
    return result


def add_settings(parser: argparse.ArgumentParser, settings: type) -> None:
    """One flag a field; a flag that is not given is absent from the parsed names, so that defaults can come later."""
    kinds = typing.get_type_hints(settings)
    for item in dataclasses.fields(settings):
        options: dict[str, Any] = {"dest": item.name, "default": argparse.SUPPRESS}
        kind = kinds[item.name]
        if kind is bool:
            options["action"] = "store_true"
        elif item.metadata.get("choices") == SWITCHES:
            # Bare it is yes, as when it was a flag without a value.
            options |= {"type": switch, "nargs": "?", "const": "on", "metavar": "|".join(SWITCHES)}
        elif kind in (int, float, str):
            options |= {"type": kind, "metavar": item.name.rsplit("_", 1)[-1].upper()}
        else:
            options |= {"type": lambda text: tuple(filter(None, text.split(","))), "metavar": "A,B"}
        default = "" if kind is bool else f" [{'auto' if item.default == () else item.default}]"
        words = t(f"setting.{item.name}.help", "en").replace("%", "%%")
        parser.add_argument(flag_name(item.name), help=words + default, **options)


def chosen(args: argparse.Namespace, settings: Any) -> Any:
    """`settings` with the flags that were given."""
    given = {item.name: getattr(args, item.name) for item in dataclasses.fields(settings) if hasattr(args, item.name)}
    return dataclasses.replace(settings, **given)


def base_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", default="embedded", help="`embedded`, a model folder or a hub id [embedded]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 … [auto]")
    parser.add_argument("--dtype", default="auto", choices=DTYPES, help="numbers of the base [auto]")
    words = "load the base's linear layers in 8 or 4 bits [none]"
    parser.add_argument("--quantization", default="none", choices=QUANTIZATIONS, help=words)


def root_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=repository_root(), help="folder that holds data/ and checkpoints/")


@contextmanager
def stop_on_interrupt(*, quiet: bool = False) -> Iterator[Callable[[], bool]]:
    """Gives `should_stop`: the first Ctrl+C asks to stop and keep what is there, the second breaks off."""
    asked = threading.Event()

    def ask(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        if quiet:
            return
        print("stopping at the next step and keeping what is there; Ctrl+C again breaks off", file=sys.stderr)

    former = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, former)
