"""Defects of what a node sends to its peers, and the checks that see them."""

MUTANTS = {
    "peers-left-out": ("AIP-FAIL-003", "AIP-PROV-009"),
    "peers-first": ("AIP-MESH-010",),
    "peers-backwards": ("AIP-MESH-010",),
    "peer-untold": ("AIP-PROV-009",),
    "mesh-streams-buffered": ("AIP-MESH-026",),
    "labels-stop-at-peers": ("AIP-MESH-016",),
    "client-key-to-peers": ("AIP-MESH-015",),
    "mesh-unsigned-ok": ("AIP-MESH-013",),
    "mesh-loops": ("AIP-MESH-014",),
    "peer-timeout-ignored": ("AIP-MESH-008",),
    "peer-error-relayed": ("AIP-FAIL-003",),
}
