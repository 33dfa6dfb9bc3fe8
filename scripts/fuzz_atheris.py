"""Coverage-guided fuzzing of every decoder, with atheris in an interpreter of its own.

    python scripts/fuzz_atheris.py [--seconds 60] [dialect ...]

atheris needs a build for the interpreter it runs in, so it is no dependency of this project: the
script makes ``.venvs/atheris`` with python3.12 (or this interpreter) and runs itself in there, one
process a dialect. Inputs that found something new are kept in ``build/atheris`` and tried first the
next time; a crash is printed with its input and makes the script fail. Exit code 3: atheris cannot
be had here.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
HOME: Final = ROOT / ".venvs" / "atheris"
KEPT: Final = ROOT / "build" / "atheris"
PATHS: Final = [ROOT / part for part in ("spec", "middleware", "conformance")]
DIALECTS: Final = ("chat", "responses", "draft", "completions", "anthropic", "gemini", "cohere",
                   "mistral", "workers_ai")  # fmt: skip
#: What the dialects import, beside the standard library.
NEEDS: Final = ("atheris", "orjson", "msgspec")
UNAVAILABLE: Final = 3


def interpreter() -> Path | None:
    """The interpreter that has atheris, made when it is not there; ``None`` when it cannot be."""
    python = HOME / "bin" / "python"
    marker = HOME / "complete"
    if marker.exists():
        return python
    base = shutil.which("python3.12") or sys.executable
    HOME.parent.mkdir(exist_ok=True)
    (HOME.parent / ".gitignore").write_text("*\n")
    made = subprocess.run([base, "-m", "venv", "--clear", str(HOME)], check=False)
    if made.returncode:  # a name that leads to no interpreter
        venv.create(HOME, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, *NEEDS], check=False, stderr=subprocess.DEVNULL).returncode:
        return None
    marker.touch()
    return python


def fuzz(dialect: str, seconds: int) -> None:
    """Fuzz one dialect in this process, which atheris ends."""
    import atheris  # only there in its own environment

    with atheris.instrument_imports(include=["aiproxy.middleware.dialects"]):
        from aiproxy.middleware.dialects.canonical import (
            MalformedReply,
            MalformedRequest,
            StreamCut,
            Untranslatable,
        )
        from aiproxy.middleware.dialects.codecs import codec

        module = codec(dialect)
    import orjson

    def read(value: Any) -> None:
        body = value if isinstance(value, dict) else {"value": value}
        for name in ("decode_request", "decode_reply"):
            if hasattr(module, name):
                try:
                    getattr(module, name)(body)
                except (MalformedRequest, MalformedReply, Untranslatable):
                    pass
        if not hasattr(module, "StreamDecoder"):
            return
        decoder = module.StreamDecoder()
        for frame in value if isinstance(value, list) else [value]:
            if isinstance(frame, dict):
                decoder.feed(frame, None)
        try:
            decoder.finish()
        except StreamCut:
            pass

    def one(data: bytes) -> None:
        try:
            value = orjson.loads(data)
        except ValueError:
            return
        read(value)

    known = [orjson.loads(seed) for seed in seeds(dialect)]

    def mutated(data: bytes, limit: int, seed: int) -> bytes:
        chance = random.Random(seed)
        try:
            value = orjson.loads(data)
        except ValueError:
            value = chance.choice(known)
        for _ in range(chance.randint(1, 3)):
            value = changed(value, chance)
        written = orjson.dumps(value)
        return written if len(written) <= limit else data[:limit]

    folder = KEPT / dialect
    folder.mkdir(parents=True, exist_ok=True)
    for place, document in enumerate(known):
        (folder / f"seed-{place}").write_bytes(orjson.dumps(document))
    options = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=10", "-rss_limit_mb=1024",
               f"-artifact_prefix={folder}/crash-", str(folder)]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutated)
    atheris.Fuzz()


ODD: Final[tuple[Any, ...]] = (
    None, True, -1, 0, 2**63, 1.5, "", "x", "auto", "error", "tool_use", "stop", [], {}, [{}], {"": 1},
    "data:image/png;base64,A", "aiproxy.anthropic.s.x", "{", [[]], "function", "text",
)  # fmt: skip


def changed(value: Any, chance: random.Random) -> Any:
    """The document with one place of it deleted, doubled, swapped or made something odd."""
    holders: list[Any] = []
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list) and one:
            holders.append(one)
            waiting += one.values() if isinstance(one, dict) else one
    if not holders:
        return chance.choice(ODD)
    holder = chance.choice(holders)
    key = chance.choice(list(holder)) if isinstance(holder, dict) else chance.randrange(len(holder))
    how = chance.randrange(5)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, list):
        holder.append(json.loads(json.dumps(holder[key])))
    elif how == 2:
        other = chance.choice(holders)
        values = list(other.values()) if isinstance(other, dict) else other
        holder[key] = json.loads(json.dumps(chance.choice(values))) if values else None
    elif how == 3:
        holder[key] = [holder[key]]
    else:
        holder[key] = json.loads(json.dumps(chance.choice(ODD)))
    return value


def seeds(dialect: str) -> list[bytes]:
    """Good documents of the dialect, from the fidelity grid's fake providers."""
    sys.path.insert(0, str(ROOT / "tests" / "dialects"))
    from fidelity.answers import ANSWERS
    from fidelity.provider_writers import PROVIDERS

    source = PROVIDERS.get(dialect, PROVIDERS["responses"])
    found = [source.whole(answer) for answer in ANSWERS if source.says(answer, False)]
    streams = [
        [payload for _, payload in source.stream(answer)]
        for answer in ANSWERS
        if source.says(answer, True) and len(answer.text) < 100
    ]
    return [json.dumps(document).encode() for document in (*found, *streams)]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("dialects", nargs="*", default=list(DIALECTS))
    parser.add_argument("--seconds", type=int, default=60, help="of each dialect")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        fuzz(options.dialects[0], options.seconds)
        return 0
    python = interpreter()
    if python is None:
        print("atheris cannot be installed here: no build for this interpreter, or no network")
        return UNAVAILABLE
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS))}
    failed = []
    for dialect in options.dialects:
        command = [str(python), __file__, "--inside", "--seconds", str(options.seconds), dialect]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        last = [line for line in done.stderr.splitlines() if "DONE" in line or "cov:" in line][-1:]
        print(f"{dialect}: {'ok' if not done.returncode else 'FAILED'} {''.join(last)[:100]}")
        if done.returncode:
            failed.append(dialect)
            print(done.stdout[-2000:] + done.stderr[-2000:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
