"""Make a virtual environment for each major version of the official SDK that the tests drive.

    python scripts/sdk_venvs.py [1 2 3]

``.venvs/openai-N`` gets the newest ``openai`` of major version N and nothing of this project: the
tests of ``tests/server/test_official_sdk.py`` run one script in each of them against a real server.
A version that is there already is left as it is; remove its folder to renew it.
"""

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

VERSIONS: Final = (1, 2, 3)
FOLDER: Final = Path(__file__).resolve().parent.parent / ".venvs"


def interpreter(major: int) -> Path:
    """Where the interpreter of one version is, or will be."""
    return FOLDER / f"openai-{major}" / "bin" / "python"


def make(major: int) -> None:
    """Create one environment.

    Raises:
        CalledProcessError: pip could not install it.
    """
    home = FOLDER / f"openai-{major}"
    marker = home / "complete"
    if marker.exists():
        return
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    venv.create(home, clear=True, with_pip=True)
    wanted = f"openai>={major},<{major + 1}"
    command = [str(interpreter(major)), "-m", "pip", "install", "--quiet", wanted]
    subprocess.run([*command, "--disable-pip-version-check"], check=True)
    marker.touch()


def main(arguments: Sequence[str]) -> int:
    for text in arguments or map(str, VERSIONS):
        if not text.isdigit() or int(text) not in VERSIONS:
            print(f"{text}: expected one of {VERSIONS}", file=sys.stderr)
            return 2
        print(f"openai {text}.x ...", flush=True)
        make(int(text))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
