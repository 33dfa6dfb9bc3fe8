"""``max_completion_tokens: "auto"`` and its other names: the output limit for one model."""

from collections.abc import Mapping
from typing import Final

from aiproxy.middleware.intent import Intent
from aiproxy.middleware.registry import Model

#: Tokens an answer of each class usually needs, before the prompt's length is looked at.
CLASS_BASE: Final[Mapping[str, int]] = {
    "reasoning": 2048,
    "coding": 1536,
    "analytical": 1024,
    "creative": 1024,
    "general": 512,
}
_LARGEST: Final = 16_384


def token_limit(intent: Intent, model: Model) -> tuple[int, str]:
    """Return the output limit in tokens, at least 1, and what bound it (XAI-AUTO-017 to 021).

    The smallest of: the model's output limit, what its context leaves beside the prompt, the class
    base grown by the prompt's length (doubling at 500 tokens, at most fourfold), and what the cost
    limit pays for.
    """
    task = intent.task if intent.task in CLASS_BASE else "general"
    growth = 1.0 + min(3.0, intent.prompt_tokens / 500)
    options = [(min(_LARGEST, int(CLASS_BASE[task] * growth)), "task_complexity")]
    if model.max_output_tokens is not None:
        options.append((model.max_output_tokens, "model_output_limit"))
    if model.context_window is not None:
        options.append((model.context_window - intent.prompt_tokens, "context_window"))
    allowance = intent.constraints.spendable
    if allowance is not None and model.price is not None:
        each = model.price.at(intent.prompt_tokens).writing * intent.copies
        if each > 0:
            left = allowance - model.price.worst(intent.prompt_tokens, 0, intent.copies)
            options.append((left // each, "cost_limit"))
    limit, basis = min(options)
    return max(1, limit), basis
