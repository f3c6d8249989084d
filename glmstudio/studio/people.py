"""Who calls a verb of Studio, and the one table that says which role it takes. Knows no verb's inside."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from glmstudio.errors import StudioError

# Each may do what those before it may.
ROLES = ("viewer", "annotator", "owner")


@dataclass(frozen=True)
class Person:
    """`name` goes into what they write; it is empty where nobody logs in. `role` is one of `ROLES`."""

    name: str
    role: str


# Whoever sits at the machine: commands, and the program itself.
OWNER = Person("", "owner")

_VERBS = {
    # Look at rows, runs and scores, and ask what is there.
    "viewer": """
        active_run adapters base_status bases broken_imports checkpoints compare count_tokens damaged datasets
        default_settings dev_row devices former_database get_example imports job look metrics page preview probing
        progress require_dataset row_after row_starts run runs training_rows
    """,
    # Write rows, take data in and out, judge answers.
    "annotator": """
        delete_examples export_file export_to exported_rows forget_import import_file judge_again judge_dev_row
        preview_import restore_examples save_example save_feedback undo_import undo_save
    """,
    # Train, evaluate, choose bases, give models away; what concerns everybody, or names files of the machine.
    "owner": """
        as_ begins_anew close command_line continue_run examine_base load_base move_in_queue pause_run plan_run
        release_base remove_broken_imports remove_from_queue rename_dataset resident resume_run run_yaml start
        start_evaluation start_export start_queue start_run start_values stop_job stop_run use_base
    """,
}
ROLE_OF = {verb: role for role, verbs in _VERBS.items() for verb in verbs.split()}

Class = TypeVar("Class", bound=type)


def asks_the_role(verbs: Class) -> Class:
    """Has every public method and property of a class ask first whether its `_person` may. Raises TypeError where the
    table and the class do not name the same verbs."""
    public = {name for name in dir(verbs) if not name.startswith("_")}
    if odd := public ^ ROLE_OF.keys():
        raise TypeError(f"verbs without a role, or roles without a verb: {sorted(odd)}")
    for name in public:
        found = inspect.getattr_static(verbs, name)
        if isinstance(found, property):
            setattr(verbs, name, property(_asking(name, found.fget), doc=found.__doc__))
        else:
            setattr(verbs, name, _asking(name, found))
    return verbs


def _asking(name: str, verb: Callable[..., Any]) -> Callable[..., Any]:
    needed = ROLE_OF[name]

    @functools.wraps(verb)
    def asked(self: Any, *values: Any, **named: Any) -> Any:
        if ROLES.index(self._person.role) < ROLES.index(needed):
            raise StudioError("not-allowed", verb=name, role=self._person.role, needed=needed)
        return verb(self, *values, **named)

    return asked
