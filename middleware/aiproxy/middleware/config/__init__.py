"""The configuration of AIProxy: reading, checking and printing it. See ``loading``."""

from aiproxy.middleware.config.loading import (
    Config,
    ConfigInvalid,
    Finding,
    Problem,
    Validator,
    insecure_public_bind,
    load_config,
)

__all__ = [
    "Config",
    "ConfigInvalid",
    "Finding",
    "Problem",
    "Validator",
    "insecure_public_bind",
    "load_config",
]
