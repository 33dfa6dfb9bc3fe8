"""How to run: everything that a command line, a manifest or a caller can say."""

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from aiproxy.conformance.launching import Launcher, takes_config
from aiproxy.conformance.manifest import Target
from aiproxy.conformance.rig.rendering import headers_of
from aiproxy.conformance.scoring import ATTACHED, CONTROLLED, OBSERVE

_BUDGETS: Final = {OBSERVE: 200, ATTACHED: 3000, CONTROLLED: 3000}
_MOST_SEED: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Options:
    """How to run. ``checks`` limits the run to these ids and what they depend on.

    ``budget`` bounds the requests of the run (0: what is usual for its mode), ``timeout_s`` each of
    them, ``limit_s`` all together, ``ready_s`` the start of the target. ``mode`` may be left open.

    The target is started for each world by ``launch`` or ``launcher``, with a configuration in the
    form ``config_for``; or ``worlds`` gives the URL of one that runs, configured by hand, for each
    world. The fake providers listen at ``ports`` (by provider id), or are reached through the
    control port at ``control``. ``headers`` go with every request to the target; the values in
    ``hidden`` stand in no report. ``expected`` are the checks that the file ``baseline`` expects to
    fail.
    """

    level: int = 1
    seed: int | None = None
    api_key: str | None = field(default=None, repr=False)
    model: str | None = None
    checks: tuple[str, ...] = ()
    budget: int = 0
    timeout_s: float = 30.0
    limit_s: float = 600.0
    command: str = ""
    mode: str = ""
    launch: str = ""
    launcher: Launcher | None = None
    config_for: str = "aiproxy"
    ready_s: float = 60.0
    worlds: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    control: str = ""
    control_token: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    hidden: tuple[str, ...] = field(default=(), repr=False)
    target: Target = field(default_factory=Target)
    baseline: str = ""
    expected: tuple[str, ...] = ()
    profile: str = ""

    @property
    def resolved_mode(self) -> str:
        """The mode asked for, or the one that the rest makes possible."""
        if self.mode:
            return self.mode
        if self.control:
            return ATTACHED
        return CONTROLLED if self.configures or self.worlds else OBSERVE

    @property
    def configures(self) -> bool:
        """Whether the target that we start is told of our providers, by a file or by requests."""
        if self.launcher is not None or takes_config(self.launch):
            return True
        return bool(self.launch) and headers_of(self.config_for) is not None

    @property
    def most_requests(self) -> int:
        """The bound on the requests of the run."""
        return self.budget or _BUDGETS[self.resolved_mode]

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no report may show."""
        named = (self.api_key, self.control_token, *self.hidden)
        return tuple(secret for secret in named if secret)

    def as_plain(self) -> dict[str, Any]:
        """Return the options as plain data; a launcher, which only code can give, is left out."""
        data = asdict(replace(self, launcher=None))
        del data["launcher"]
        return data

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> "Options":
        """Return the options that ``as_plain`` described."""
        given = {name: data[name] for name in (f.name for f in fields(cls)) if name in data}
        given["target"] = Target(**given["target"])
        for name in ("checks", "expected", "hidden"):
            given[name] = tuple(given[name])
        return cls(**given)


def fresh_seed() -> int:
    """Return a seed nobody has chosen."""
    return secrets.randbelow(_MOST_SEED)
