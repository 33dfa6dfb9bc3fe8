"""Make a virtual environment for each official SDK that the tests drive or judge by.

    python scripts/sdk_venvs.py [1 2 3 anthropic ...]

``.venvs/openai-N`` gets the newest ``openai`` of major version N and nothing of this project: the
tests of ``tests/server/test_official_sdk.py`` run one script in each of them against a real server.
``.venvs/NAME`` gets another provider's SDK (``OTHERS``), whose types judge its dialect.
What is there already is left as it is; remove its folder to renew it.
"""

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

VERSIONS: Final = (1, 2, 3)
OTHERS: Final = {
    "anthropic": "anthropic>=2,<3",
    "cohere": "cohere>=7,<8",
    "mistralai": "mistralai>=3,<4",
    "google-genai": "google-genai>=3,<4",
}
FOLDER: Final = Path(__file__).resolve().parent.parent / ".venvs"


def wanted(name: str) -> tuple[Path, str] | None:
    """Return the folder of an SDK, a major version or a name, and what is installed there."""
    if name in OTHERS:
        return FOLDER / name, OTHERS[name]
    if name.isdigit() and int(name) in VERSIONS:
        return FOLDER / f"openai-{name}", f"openai>={name},<{int(name) + 1}"
    return None


def make(home: Path, requirement: str) -> None:
    """Create one environment.

    Raises:
        CalledProcessError: pip could not install it.
    """
    marker = home / "complete"
    if marker.exists():
        return
    home.parent.mkdir(exist_ok=True)
    (home.parent / ".gitignore").write_text("*\n")
    venv.create(home, clear=True, with_pip=True)
    command = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", requirement]
    subprocess.run([*command, "--disable-pip-version-check"], check=True)
    marker.touch()


def main(arguments: Sequence[str]) -> int:
    for name in arguments or (*map(str, VERSIONS), *OTHERS):
        found = wanted(name)
        if found is None:
            print(f"{name}: expected one of {(*VERSIONS, *OTHERS)}", file=sys.stderr)
            return 2
        print(f"{found[1]} ...", flush=True)
        make(*found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
