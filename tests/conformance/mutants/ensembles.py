"""Defects of ensembles, and the checks that see them."""

MUTANTS = {
    "consensus-takes-the-first": ("UNI-ENS-001",),
    "voting-takes-the-first": ("UNI-ENS-002",),
    "weights-forgotten": ("UNI-ENS-003",),
    "cascade-asks-everybody": ("UNI-ENS-004",),
    "cascade-upside-down": ("UNI-ENS-004",),
    "cascade-gives-up": ("UNI-ENS-004",),
    "members-in-turn": ("UNI-ENS-005", "UNI-BENCH-003"),
    "one-failure-is-fatal": ("UNI-ENS-007",),
    "no-quorum": ("UNI-ENS-007",),
}
