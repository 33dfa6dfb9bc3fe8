"""What must turn red when models, providers or their health are told wrong."""

from typing import Final

MUTANTS: Final = {
    "models-cost-as-text": ("AIP-API-020",),
    "models-per-provider": ("AIP-API-021",),
    "always-available": ("AIP-API-022",),
    "priority-wraps": ("AIP-ROUTE-003",),
    "disabled-is-last-resort": ("AIP-ROUTE-027",),
    "probes-by-chat": ("AIP-OBS-018",),
    "providers-unnamed": ("UNI-REG-001",),
    "providers-without-models": ("UNI-REG-007",),
    "providers-show-endpoints": ("UNI-API-007",),
    "extensions-empty": ("UNI-API-005",),
    "capabilities-empty": ("UNI-API-006",),
}
