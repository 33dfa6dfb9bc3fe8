"""How a local model stands: on which device, and ready, idle, lost or unavailable."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from aiproxy.reference_server.onnx.local_model import LocalModel

#: ready: loaded; idle: loaded by its first request; lost: its device or process failed and is being
#: started again; unavailable: it cannot run.
State: TypeAlias = Literal["ready", "idle", "lost", "unavailable"]


@dataclass(frozen=True, slots=True)
class Condition:
    """``reason`` says why it is lost or unavailable, else why it is on this ``device``."""

    name: str
    state: State
    device: str | None
    device_name: str | None
    reason: str | None


def condition(model: LocalModel) -> Condition:
    """Return how ``model`` stands now."""
    device = model.device
    place = None if device is None else str(device)
    hardware = None if device is None else device.name
    why = None if device is None else device.reason or None
    if not model.available:
        return Condition(model.name, "unavailable", place, hardware, model.reason)
    if not any(True for _ in model.parts()):
        return Condition(model.name, "idle", place, hardware, why)
    lost = next(filter(None, (part.lost for part in model.parts())), None)
    if lost is not None:
        return Condition(model.name, "lost", place, hardware, lost)
    return Condition(model.name, "ready", place, hardware, why)


def line(model: LocalModel) -> str:
    """One line about ``model`` for the operator who starts a server."""
    now = condition(model)
    if now.state == "unavailable":
        return f"  - {now.name}: unavailable: {now.reason}"
    where = "the CPU" if now.device == "cpu" else f"{now.device} ({now.device_name})"
    when = " when first asked" if now.state == "idle" else ""
    why = f"; {now.reason}" if now.reason and now.device == "cpu" else ""
    return f"  * {now.name}: runs on {where}{when}{why}"
