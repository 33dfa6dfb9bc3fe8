"""``reasoning: "auto"``: the ladder native, enhanced, simulated (draft section 5)."""

from dataclasses import dataclass
from typing import Any, Final

from aiproxy.middleware.intent import Intent
from aiproxy.middleware.registry import Model

#: The effort asked of a model with reasoning of its own.
EFFORT: Final = "medium"
SIMULATED: Final = (
    "[aiproxy: simulated reasoning] Before answering, work through the problem step by step, "
    "check each step, then state the result."
)
TECHNIQUE: Final = "step_by_step_instruction"
#: Endpoints whose requests have no turn that an instruction could be.
_WITHOUT_TURNS: Final = frozenset({"completions", "embeddings", "classifications"})


@dataclass(frozen=True, slots=True)
class Rung:
    """The reasoning that is delivered. ``capability`` is native, enhanced, simulated or none;
    ``instruction`` is the one turn that is added for it."""

    requested: str
    capability: str
    technique: str | None = None
    instruction: str | None = None

    @property
    def native(self) -> bool:
        """Whether the model reasons itself, as a setting of the request asks it to."""
        return self.capability == "native"

    def record(self) -> dict[str, Any]:
        return {
            "requested": self.requested,
            "capability": self.capability,
            "technique": self.technique,
        }


def wants_reasoning(intent: Intent) -> bool:
    """``reasoning: "auto"``, or a reasoning hint or preference while the model is auto."""
    if intent.mode != "assisted":
        return False
    if "reasoning" in intent.autos or "reasoning_effort" in intent.autos:
        return True
    hinted = intent.task == "reasoning" and intent.task_source == "hint"
    return intent.selects and (hinted or intent.reasoning is not None)


def rung_for(intent: Intent, model: Model) -> Rung | None:
    """Return the rung a model delivers, ``None`` where no reasoning was asked for.

    Native reasoning that is missing degrades and never fails (XAI-REASON-004); the preference
    *simulated* keeps to an instruction even where the model has reasoning of its own.
    """
    if not wants_reasoning(intent):
        return None
    requested = intent.reasoning or "auto"
    if intent.reasoning != "simulated" and model.reasoning in ("native", "enhanced"):
        return Rung(requested, model.reasoning)
    if intent.endpoint in _WITHOUT_TURNS:
        return Rung(requested, "none")
    return Rung(requested, "simulated", TECHNIQUE, SIMULATED)


def reasons(model: Model) -> bool:
    """Whether a model is declared to have reasoning of its own that a setting can steer."""
    return model.reasoning == "native" or "reasoning" in model.capabilities
