"""From words to options: what the command line and pytest were given, the manifest beneath it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from aiproxy.conformance.baseline import Baseline, read_baseline
from aiproxy.conformance.checks import catalogue
from aiproxy.conformance.endpoint import base_url
from aiproxy.conformance.features import feature_of
from aiproxy.conformance.launching import launch_words
from aiproxy.conformance.manifest import Manifest, read_manifest
from aiproxy.conformance.options import Options, fresh_seed
from aiproxy.conformance.planning import chosen
from aiproxy.conformance.rig.rendering import renderer
from aiproxy.conformance.scoring import ATTACHED, CONTROLLED, MODES, OBSERVE

KEY_VARIABLE: Final = "AIPROXY_API_KEY"
_PRINTABLE: Final = re.compile(r"[!-~]+")
TOKEN_VARIABLE: Final = "AIPROXY_UPSTREAM_TOKEN"  # noqa: S105 (a name)


class Usage(ValueError):
    """What was asked for makes no sense; the text is one line for people."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A run as it was asked for. ``url`` is empty when the run starts the target itself.

    ``repeat`` are the words of a command that asks for the same target again.
    """

    url: str
    options: Options
    repeat: str


def asked_for(
    given: Mapping[str, Any], environment: Mapping[str, str], url_option: str = ""
) -> Asked:
    """Return the run that ``given`` asks for; options by name, ``url`` among them.

    ``url_option`` is what stands before the URL on a command line.

    Raises:
        Usage: it makes no sense, or a file that it names cannot be used.
    """
    try:
        return _asked_for(given, environment, url_option)
    except Usage:
        raise
    except ValueError as fault:  # of the manifest, the baseline, the URL, the command, ...
        raise Usage(str(fault)) from None


def _asked_for(given: Mapping[str, Any], environment: Mapping[str, str], url_option: str) -> Asked:
    url, launch = given.get("url") or "", given.get("launch") or ""
    if url and launch:
        raise Usage("give a URL, or --launch CMD to start the target, not both")
    manifest = Manifest()
    if given.get("manifest"):
        manifest = read_manifest(Path(given["manifest"]), environment, set(feature_of().values()))
    named = bool(url or launch)
    options = Options(
        level=_number(given, "level", range(1, 6)) or manifest.target.level or 1,
        seed=_seed(given, manifest),
        api_key=given.get("api_key") or manifest.api_key or environment.get(KEY_VARIABLE) or None,
        model=given.get("model") or manifest.model,
        checks=tuple(given.get("check") or ()),
        mode=given.get("mode") or manifest.mode,
        launch=launch if named else manifest.launch,
        config_for=given.get("config_for") or manifest.config_for or "aiproxy",
        worlds={} if named else manifest.worlds,
        ports={} if named else manifest.ports,
        control=given.get("upstreams") or manifest.control,
        control_token=manifest.control_token or environment.get(TOKEN_VARIABLE, ""),
        headers=manifest.headers,
        hidden=manifest.hidden,
        target=manifest.target,
        profile=_profile(given.get("profile")),
        command=given.get("command") or "",
    )
    if not named and not options.launch and not options.worlds:
        url = manifest.url
    if not url and not options.launch and not options.worlds:
        raise Usage("give a URL, --launch CMD to start the target, or --manifest FILE")
    url = base_url(url) if url else ""
    _fits(options, url)
    if given.get("baseline"):
        baseline = _baseline(Path(given["baseline"]))
        options = replace(options, baseline=baseline.file, expected=baseline.expected)
    return Asked(url, options, _repeat(given, url_option))


def _fits(options: Options, url: str) -> None:
    """Refuse what cannot go together before anything is started."""
    mode = options.resolved_mode
    if mode not in MODES:
        raise Usage(f"--mode: expected one of {', '.join(MODES)}; found {mode!r}")
    if options.launch:
        launch_words(options.launch)
    if mode != OBSERVE and not options.worlds and not options.configures:
        raise Usage(
            f"mode {mode} needs a target that the suite configures: --launch with {{config}}, "
            "or worlds in the manifest (aiproxy conformance init writes one)"
        )
    if mode == ATTACHED and not options.control:
        raise Usage("mode attached needs --upstreams CONTROL_URL")
    if mode == CONTROLLED and options.control:
        raise Usage("--upstreams goes with mode attached")
    if options.control:
        base_url(options.control)
    if mode == OBSERVE and not url and not options.launch:
        raise Usage("mode observe needs a URL")
    if options.api_key and not _PRINTABLE.fullmatch(options.api_key):
        raise Usage("the target's key has characters that no header can carry")
    renderer(options.config_for)
    chosen(options)


def _seed(given: Mapping[str, Any], manifest: Manifest) -> int:
    asked = _number(given, "seed", range(1 << 32))
    if asked is None:
        return fresh_seed() if manifest.seed is None else manifest.seed
    if manifest.seed is not None and manifest.worlds and asked != manifest.seed:
        raise Usage(f"--seed {asked}: the target was configured for seed {manifest.seed}")
    return asked


def _number(given: Mapping[str, Any], name: str, allowed: range) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    text = str(value)
    if text.isdecimal() and len(text) < 20 and int(text) in allowed:
        return int(text)
    raise Usage(f"--{name} {text[:40]!r}: a number from {allowed[0]} to {allowed[-1]} is needed")


def _profile(name: str | None) -> str:
    from aiproxy.spec import profiles

    if name and name not in profiles():
        close = get_close_matches(name, profiles(), 2)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise Usage(f"--profile: no profile {name!r}; there are {', '.join(profiles())}{hint}")
    return name or ""


def _baseline(path: Path) -> Baseline:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as fault:
        raise Usage(f"--baseline {path}: {fault.strerror}") from None
    except UnicodeDecodeError as fault:
        raise Usage(f"--baseline {path}: not UTF-8 at byte {fault.start}") from None
    every = [row.id for scenario in catalogue() for row in scenario.checks]
    return read_baseline(text, str(path), every)


def _repeat(given: Mapping[str, Any], url_option: str) -> str:
    """Return the words that name the same target once more, never with a key."""
    from shlex import quote

    from aiproxy.conformance.redaction import public_url

    words = [url_option] if given.get("url") and url_option else []
    words += [quote(public_url(given["url"]))] if given.get("url") else []
    for name in ("launch", "config_for", "manifest", "mode", "upstreams", "model"):
        if given.get(name):
            words += [f"--{name.replace('_', '-')}", quote(str(given[name]))]
    return " ".join(words)
