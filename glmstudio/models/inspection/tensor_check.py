"""Whether a folder's tensors are those of the model that its config describes: names and shapes, without numbers.

Builds the model on "meta", where it takes no memory. Knows no tokenizer.
"""

from pathlib import Path

from glmstudio.errors import StudioError, first_line
from glmstudio.models.checkpoint_files import refuse_missing
from glmstudio.models.inspection.anatomy import Anatomy

HEAD = "lm_head.weight"


def tensor_problems(found: Anatomy) -> list[StudioError]:
    """The first tensor of each file that the model does not have or has in another shape, and what is missing.

    What is missing is told where every file could be read. The config must be of a known family.
    """
    try:
        model = found.family.stored_tensors(found.folder, found.config)
    except Exception as error:  # Configs can be wrong in many ways, and each model class has its own.
        return [StudioError("config-unfit", file=str(found.folder / "config.json"), reason=first_line(error))]
    problems: dict[Path, StudioError] = {}
    renamed = model.renames and not found.tensors.keys() <= model.tensors.keys()
    missing = set(model.tensors) - ({HEAD} if found.tied else set())
    for file, headers in found.headers.items():
        for name, header in headers.items():
            try:
                missing.difference_update(model.names_of(file, name, header.empty()))
            except StudioError as error:
                problems.setdefault(file, error)
    if not renamed and not problems and set(found.headers) == set(found.files) and not found.problems:
        try:
            refuse_missing(found.folder, {model.stored(name) for name in missing})
        except StudioError as error:
            return [error]
    return list(problems.values())
