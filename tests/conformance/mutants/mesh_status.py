"""Defects of a node's mesh status and heartbeats, and the checks that see them."""

MUTANTS = {
    "no-mesh-node": ("AIP-API-025",),
    "uptime-constant": ("AIP-API-025",),
    "peer-addr-cut": ("AIP-API-026",),
    "models-miscounted": ("AIP-API-027",),
    "peer-unhealthy-at-once": ("AIP-MESH-009",),
    "peer-never-unhealthy": ("AIP-MESH-009",),
    "peer-never-recovers": ("AIP-MESH-009",),
    "peer-status-words": ("AIP-MESH-018",),
    "latency-in-seconds": ("AIP-MESH-019",),
    "latency-constant-peers": ("AIP-MESH-019",),
    "slow-heartbeats": ("AIP-MESH-007",),
    "load-shared-anyway": ("AIP-MESH-011",),
}
