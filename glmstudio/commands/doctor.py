"""The command `doctor`: what a model is, what it needs and what is wrong with it. Knows no model."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio import quantities
from glmstudio.settings import DTYPES
from glmstudio.ui.language import error_text, in_numbers, t

if TYPE_CHECKING:
    from glmstudio.errors import StudioError
    from glmstudio.models.inspection.doctor import Diagnosis


def add_doctor(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor",
        help="say what a model is, what it needs and what is wrong with it",
        description="Looks at a model without loading its weights. Ends with 2 where something is wrong with it.",
    )
    parser.add_argument("source", help="`embedded`, a model folder, or a hub id that was downloaded before")
    parser.add_argument("--device", default="auto", help="where it is to run: auto, cpu, cuda:0 … [auto]")
    parser.add_argument("--dtype", default="auto", choices=DTYPES, help="numbers of the base [auto]")
    parser.add_argument("--verify", action="store_true", help="read every file and check its sha256 (hub's cache)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=doctor_command)


def doctor_command(args: argparse.Namespace) -> int:
    from glmstudio.models.inspection.doctor import examine

    found = examine(args.source, device=args.device, dtype=args.dtype, verify=args.verify)
    print(as_json(found) if args.json else "\n".join(lines(found)))
    return 2 if found.problems else 0


def as_json(found: "Diagnosis") -> str:
    """Every field; a problem with its code, params and English sentence."""
    plain = {item.name: getattr(found, item.name) for item in dataclasses.fields(found)}
    plain["problems"] = [_plain(error) for error in found.problems]
    plain["untrained"] = _plain(found.untrained) if found.untrained else None
    return json.dumps(plain, ensure_ascii=False, indent=2, default=_jsonable)


def _plain(error: "StudioError") -> dict[str, Any]:
    return {"code": error.code, "params": error.params, "sentence": error_text(error, "en", command=True)}


def _jsonable(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else dataclasses.asdict(value)


def lines(found: "Diagnosis") -> list[str]:
    """The diagnosis in English, a fact a line."""
    rows = [("model", found.source if str(found.folder) == found.source else f"{found.source} in {found.folder}")]
    if found.family:
        rows += [("family", f"{found.title} ({found.family})"), ("form", _form(found))]
    if found.parameters:
        numbers = ", ".join(found.dtypes)
        size = f"{quantities.size(found.bytes_on_disk)} on disk, {found.parameters:,} parameters in {numbers}"
        numbers = in_numbers(found.dtype, found.dtype_reason, "en")
        rows += [("size", size), ("machine", f"{found.device}, {numbers}, {quantities.size(found.free)} free")]
        rows += [("memory" if wish == "none" else "", _memory(found, wish)) for wish in found.needs]
    if found.tokenizer is not None:
        rows += [("tokenizer", _tokenizer(found.tokenizer)), ("prompts", ", ".join(found.tokenizer.styles))]
    if found.verified is not None:
        rows.append(("verified", f"{found.verified} files have the sha256 that the hub says"))
    rows += [("problem", error_text(error, "en", command=True)) for error in found.problems]
    if found.untrained is not None and not found.problems:
        rows.append(("training", error_text(found.untrained, "en", command=True)))
    rows.append(("next", t(f"doctor.next-{found.next_step}", "en", source=found.source)))
    return [f"{name:10} {text}" for name, text in rows]


def _form(found: "Diagnosis") -> str:
    words = t(f"form.{found.form}", "en")
    if found.conversion is None:
        return words
    return f"{words}: {found.conversion.renamed} tensors get another name, {found.conversion.split} are split in three"


def _memory(found: "Diagnosis", wish: str) -> str:
    needs = found.needs[wish]
    weights, answer, least, train = map(quantities.size, (needs.weights, needs.answer, needs.train_least, needs.train))
    return (
        f"{'as it is' if wish == 'none' else wish:8}  weights {weights}, to answer {answer}, to train {least} "
        f"(one row, gradient checkpointing) to {train} (standard settings)"
        + ("" if found.problems else f": {t(f'fits.{found.fits[wish]}', 'en')}")
    )


def _tokenizer(state: Any) -> str:
    stops = ", ".join(f"{token} ({index})" for token, index in state.stops.items())
    return f"{state.kind}, {state.tokens:,} tokens in {state.rows:,} rows; an answer ends at {stops}"
