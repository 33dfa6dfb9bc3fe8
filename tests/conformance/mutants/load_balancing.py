"""Defects of balancing, and the checks that see them."""

MUTANTS = {
    "turns-uneven": ("AIP-LB-001",),
    "local-left-out": ("AIP-LB-001", "AIP-LB-006"),
    "least-loaded-stuck": ("AIP-LB-002",),
    "weights-ignored": ("AIP-LB-003",),
    "weighted-stuck": ("AIP-LB-003",),
    "equals-asked-too": ("UNI-ENS-006",),
}
