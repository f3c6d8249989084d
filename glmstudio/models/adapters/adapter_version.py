"""Which content the files of an adapter have at one moment, and how it is asked: a run moves a new `best` into the
place of the old one while others read it. Knows files; loads no tensor."""

import hashlib
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_about import RECORD
from glmstudio.models.adapters.adapter_files import AdapterForm, adapter_form
from glmstudio.settings import PROMPT_STYLES, GenerationSettings, TrainingSettings

# Between a checkpoint's end and its successor's coming there is a moment without one.
LOOKS, SECONDS_BETWEEN = 10, 0.02

_Stamps = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class AdapterPrompt:
    """How a model is asked: the prompt style, the longest prompt and the longest answer in tokens. `recorded` says
    whether an adapter's own record says so; without one they are the defaults, which is what older adapters were
    trained with."""

    style: str = TrainingSettings().prompt_style
    max_source_length: int = TrainingSettings().max_source_length
    recorded: bool = False
    max_target_length: int = TrainingSettings().max_target_length

    def answered(self, settings: GenerationSettings) -> GenerationSettings:
        """`settings` with the length that was trained where they name none."""
        return replace(settings, max_new_tokens=settings.max_new_tokens or self.max_target_length)


@dataclass(frozen=True)
class AdapterVersion:
    """`digest` is that of config and weights; `prompt` and `step` are what the record beside them says, 0 where there
    is none. `stamps` tell these files from others of the same names."""

    form: AdapterForm
    stamps: _Stamps
    digest: str
    prompt: AdapterPrompt
    step: int

    @property
    def changed_at(self) -> float:
        """When its weights were written, in seconds since 1970."""
        return max(changed for _, _, changed in self.stamps[: len(self.form.weights)]) / 1e9

    @property
    def is_there(self) -> bool:
        """Whether its files are still those that lie there."""
        try:
            return _stamps(self.form) == self.stamps
        except OSError:
            return False


def adapter_version(path: str | Path, known: Iterable[AdapterVersion] = ()) -> AdapterVersion:
    """What lies at `path` now, all of it of one moment; files that one of `known` was made from are not read again.

    Raises StudioError `adapter-changing` where the files change faster than they are read, `file-unreadable` for a
    record that is there and cannot be read, and those of `adapter_form`.
    """
    path = Path(path)
    for look in range(LOOKS):
        before = _inode(path)
        try:
            found = _looked(path, known)
            if found.is_there:
                return found
        except (StudioError, OSError) as error:
            if before is not None and before == _inode(path):
                raise _told(error, path) from error
            if look == LOOKS - 1 and before is None:
                raise StudioError("adapter-missing", folder=str(path)) from error
        time.sleep(SECONDS_BETWEEN)
    raise StudioError("adapter-changing", folder=str(path))


def adapter_prompt(adapter: Path) -> AdapterPrompt:
    """How the adapter at `adapter` is asked; raises as `adapter_version` does."""
    return adapter_version(adapter).prompt


def _looked(path: Path, known: Iterable[AdapterVersion]) -> AdapterVersion:
    form = adapter_form(path)
    stamps = _stamps(form)
    if same := next((version for version in known if version.stamps == stamps and version.form == form), None):
        return same
    record = _record(form)
    try:
        prompt = AdapterPrompt(
            record["prompt_style"], int(record["max_source_length"]), recorded=True,
            max_target_length=int(record.get("max_target_length") or AdapterPrompt.max_target_length),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        prompt = AdapterPrompt()
    step = record.get("step")
    return AdapterVersion(
        form, stamps, _digest(form), prompt if prompt.style in PROMPT_STYLES else AdapterPrompt(),
        step if isinstance(step, int) else 0,
    )  # fmt: skip


def _record(form: AdapterForm) -> dict[str, object]:
    """What `glmstudio.json` says; nothing where there is none or it is rubbish, as for adapters from elsewhere."""
    try:
        values = json.loads(_record_path(form).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _record_path(form: AdapterForm) -> Path:
    return (form.path.parent if form.path.is_file() else form.path) / RECORD


def _digest(form: AdapterForm) -> str:
    whole = hashlib.sha256(form.kind.encode())
    for file in _files(form):
        with file.open("rb") as content:
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()[:16]


def _files(form: AdapterForm) -> tuple[Path, ...]:
    return (*form.weights, form.config) if form.config else form.weights


def _stamps(form: AdapterForm) -> _Stamps:
    """(inode, bytes, time of change) of the adapter's files; the record's last, where there is one."""
    found = [file.stat() for file in _files(form)]
    with suppress(FileNotFoundError):
        found.append(_record_path(form).stat())
    return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in found)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _told(error: Exception, path: Path) -> StudioError:
    if isinstance(error, StudioError):
        return error
    return StudioError("file-unreadable", file=str(getattr(error, "filename", None) or path), reason=str(error))
