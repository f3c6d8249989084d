"""Whether a base is the one that an adapter was trained on: by the content in its record, else by names.

Reads small files; loads no weights.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from glmstudio.data.quality import Finding
from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_about import RECORD, record_of
from glmstudio.models.adapters.adapter_files import AdapterForm, adapter_form
from glmstudio.models.base_names import other_weights, public_name
from glmstudio.models.families.table import FAMILIES

if TYPE_CHECKING:
    from glmstudio.models.base import Base


def refuse_other_base(form: AdapterForm, base: "Base") -> None:
    """Raise StudioError `adapter-other-weights` where the adapter's record tells other weights than the base's, and
    `adapter-other-family` where its config names another generation of ChatGLM-6B."""
    refuse_other_weights(form, base.source, base.fingerprint)
    name = (form.trained_on or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    alike = [family for family in FAMILIES.values() if family.published_as]
    named = [family for family in alike if re.search(family.published_as, name, re.IGNORECASE)]
    if named and base.family in alike and base.family not in named:
        raise StudioError("adapter-other-family", **both_bases(form, base.source), family=base.family.title)


def refuse_other_weights(form: AdapterForm, source: str, fingerprint: str) -> None:
    """Raise StudioError `adapter-other-weights` where the record beside the adapter tells other ones than these."""
    record = record_of(_folder(form) / RECORD)
    if other_weights(str(record.get("base_fingerprint", "")), fingerprint):
        bases = both_bases(form, source) | {"trained_on": record.get("base") or form.trained_on or "?"}
        raise StudioError("adapter-other-weights", **bases, record=str(_folder(form) / RECORD))


def base_doubt(adapter: str | Path, source: str, fingerprint: str) -> Finding | None:
    """The warning `base-named-otherwise` where only names can tell whether this is the adapter's base, and they differ.

    Raises StudioError as `adapter_form` does.
    """
    form = adapter_form(adapter)
    record = record_of(_folder(form) / RECORD)
    trained_on = record.get("base_name") or record.get("base") or form.trained_on
    if not trained_on or (fingerprint and record.get("base_fingerprint") == fingerprint):
        return None
    if _last_name(trained_on) == _last_name(source):
        return None
    params = {"adapter": str(adapter), "trained_on": trained_on, "source": source}
    return Finding("base-named-otherwise", "warning", params=params)


def both_bases(form: AdapterForm, source: str) -> dict[str, str]:
    """What an error says of an adapter that was trained on another base than `source`."""
    return {"folder": str(form.path), "trained_on": form.trained_on or "?", "source": source}


def _folder(form: AdapterForm) -> Path:
    return form.path.parent if form.path.is_file() else form.path


def _last_name(source: str) -> str:
    return public_name(source).rpartition("/")[2].lower()
