"""What the rules of ``routing.policies`` may ask about a request and a candidate.

Every attribute is a name of the rule language; ``None`` is a missing value (``rules.ebnf``).
"""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """``tokens`` estimates the prompt alone; ``max_cost`` is in US dollars."""

    model: str | None
    tokens: int
    task: str | None = None
    stream: bool = False
    endpoint: str = "chat"
    max_cost: float | None = None


class CandidateFacts(NamedTuple):
    """One model at one provider; ``id`` is the provider's. Rates and quality are 0..1.

    A tuple because a request makes one for every candidate.
    """

    id: str
    type: str
    model: str | None = None
    priority: float | None = 0
    cost_per_1k_tokens: float | None = None
    latency_ms: float | None = None
    error_rate: float | None = None
    quality: float | None = None
    region: str | None = None
    weight: float | None = 1.0
    load: float | None = None
