"""Install the fake providers of other projects that tests/third_party drives us against.

    python scripts/third_party.py [aimock llmock]

Each gets a folder of its own in ``.venvs``, outside this project: ``llmock`` (PyPI) a virtual
environment, ``aimock`` (npm, needs node 20) a node prefix. What is there already is left as it is;
remove its folder to renew it. None of their code is part of this project.
"""

import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent.parent / ".venvs"
#: What we install, in the versions the tests were written against.
AIMOCK: Final = "@copilotkit/aimock@1.43.0"
LLMOCK: Final = "llmock==0.2.2"


def aimock() -> Path:
    """Where aimock's command is, or will be."""
    return FOLDER / "aimock" / "node_modules" / ".bin" / "llmock"


def llmock() -> Path:
    """Where llmock's command is, or will be."""
    return FOLDER / "llmock" / "bin" / "llmock"


def can_have(name: str) -> str | None:
    """Why this machine cannot have it; ``None`` when it can."""
    if name == "aimock" and not (shutil.which("node") and shutil.which("npm")):
        return "node and npm are not installed"
    return None


def _aimock(home: Path) -> None:
    npm = shutil.which("npm") or "npm"
    home.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(home), AIMOCK]
    subprocess.run(command, check=True)


def _llmock(home: Path) -> None:
    venv.create(home, clear=True, with_pip=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", LLMOCK], check=True)


MAKERS: Final[dict[str, Callable[[Path], None]]] = {"aimock": _aimock, "llmock": _llmock}


def make(name: str) -> None:
    """Install one.

    Raises:
        CalledProcessError: the registry could not be reached, or the package not be installed.
    """
    home = FOLDER / name
    marker = home / "complete"
    if marker.exists():
        return
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    MAKERS[name](home)
    marker.touch()


def main(arguments: Sequence[str]) -> int:
    for name in arguments or MAKERS:
        if name not in MAKERS:
            print(f"{name}: expected one of {', '.join(MAKERS)}", file=sys.stderr)
            return 2
        why = can_have(name)
        print(f"{name}: {why or '...'}", flush=True)
        if why is None:
            make(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
