"""What can go wrong with a local model, each as a class with the wire fields of its error object.

Messages and reasons are for clients and never hold a path; what an operator needs beyond that is
in the exception's ``__cause__`` and in the log.
"""

from typing import ClassVar


class LocalError(Exception):
    """A refusal or failure a client is told about; ``param`` names the body field at fault."""

    status: ClassVar[int] = 500
    code: str = "internal_error"
    kind: ClassVar[str] = "server_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class RequestRefused(LocalError):
    """The body asks for something wrong or something no local model can do."""

    status, kind = 400, "invalid_request_error"

    def __init__(self, code: str, message: str, param: str | None) -> None:
        super().__init__(message, param)
        self.code = code


class ModelNotFound(LocalError):
    """No local model has this public name."""

    status, code, kind = 404, "model_not_found", "invalid_request_error"

    def __init__(self, model: str, known: tuple[str, ...]) -> None:
        served = ", ".join(known) if known else "none"
        super().__init__(f"no local model is named {model!r}; local models: {served}", "model")


class ContextOverflow(LocalError):
    """The prompt alone fills the context. ``asked`` and ``limit`` are tokens."""

    status, code, kind = 400, "context_length_exceeded", "invalid_request_error"

    def __init__(self, limit: int, asked: int) -> None:
        super().__init__(
            f"the prompt has {asked} tokens; this model's context holds {limit}, one of them "
            "for the answer; shorten the last message",
            "messages",
        )
        self.limit, self.asked = limit, asked


class ModelUnavailable(LocalError):
    """The model is configured and cannot run; ``reason`` is a sentence without any path."""

    status, code, kind = 503, "no_healthy_provider", "upstream_error"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the local model is unavailable: {reason}", "model")
        self.reason = reason


class LocalBusy(LocalError):
    """Every place and every queue place is taken, or the wait was too long.

    ``reason`` is what the decision record and ``metadata.routing.reason`` call it.
    """

    status, code, kind = 503, "provider_overloaded", "upstream_error"
    reason: ClassVar[str] = "local_gpu_busy"

    def __init__(self, running: int, waiting: int) -> None:
        super().__init__(
            f"the local model is busy: {running} running, {waiting} waiting; try again shortly"
        )
        self.running, self.waiting = running, waiting


class GenerationFailed(LocalError):
    """The runtime failed while it computed; the cause is in the log."""

    def __init__(self) -> None:
        super().__init__("the local model failed while it was generating; see the server log")


class EngineClosed(LocalError):
    """The server is shutting down."""

    status, code, kind = 503, "no_healthy_provider", "upstream_error"

    def __init__(self) -> None:
        super().__init__("the local model is shutting down; try again later")
