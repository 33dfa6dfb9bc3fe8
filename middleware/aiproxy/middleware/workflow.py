"""What the record of a request says of its conversation; no text of it."""

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Workflow:
    """``history`` is how many earlier answers stood before the request's own turns; ``trimmed``:
    older ones had been let go of. ``kept`` says what became of the turn: *pending*, *kept*,
    *trimmed* (and older turns were let go of), *too_large*, *not_kept* (the store did not answer),
    *dropped* (it came to nothing), or *stateless*. ``merged`` are branches in the order in which
    they were merged, ``integrated`` whether all they held could be told."""

    step: str | None = None
    parent: str | None = None
    branch: str | None = None
    history: int = 0
    trimmed: bool = False
    kept: str = "stateless"
    merged: tuple[str, ...] = ()
    integrated: bool = True

    @property
    def continuity(self) -> str:
        """The state of the conversation in one word, for ``conversation_continuity``."""
        if self.kept in ("too_large", "not_kept"):
            return "lost"
        return "trimmed" if self.trimmed or self.kept == "trimmed" else "maintained"

    def as_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "parent": self.parent,
            "branch": self.branch,
            "history_answers": self.history,
            "history_trimmed": self.trimmed,
            "kept": self.kept,
            "branches_merged": list(self.merged),
            "context_integration": self.integration if self.merged else None,
        }

    @property
    def integration(self) -> str:
        """Whether a merge told all that its branches held."""
        return "complete" if self.integrated and not self.trimmed else "partial"
