"""Which checkpoint of which run, and which content it had: the name that records keep. Knows no file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AdapterRef:
    """One checkpoint of a run: `checkpoint` is `best`, `last` or `checkpoint-N`.

    Its files may change (`best` improves while a run trains), so whoever has answered says also their content's
    `digest` and the `step` that they were kept at; "" and 0 where nobody has looked.
    """

    run_id: str
    checkpoint: str
    digest: str = ""
    step: int = 0

    @property
    def name(self) -> str:
        return f"{self.run_id}@{self.checkpoint}"
