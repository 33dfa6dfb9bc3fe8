"""Make the servers available that tests/state talks to, without root.

    python scripts/services.py [redis]

``redis``: a ``redis-server`` on the PATH is used as it is. Otherwise, on Debian and its relatives, the
packages are downloaded by apt-get and unpacked into ``.venvs/redis``; nothing is installed. Prints
where the command is; exit code 1 when it cannot be had.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent.parent / ".venvs"
#: redis-server is a link to a program in redis-tools; a bare system lacks the two libraries.
_PACKAGES: Final = ("redis-server", "redis-tools", "liblzf1", "libjemalloc2")


class CannotHave(Exception):
    """Why this machine cannot have a server, and what would help."""


def redis_server() -> list[str] | None:
    """The command that starts redis-server, or ``None`` when it is not there yet."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return [found]
    home = FOLDER / "redis"
    binary = home / "usr" / "bin" / "redis-server"
    if not binary.exists():
        return None
    libraries = sorted({str(path.parent) for path in home.rglob("lib*.so*")})
    return ["env", f"LD_LIBRARY_PATH={':'.join(libraries)}", str(binary)]


def make_redis() -> list[str]:
    """Return the command of redis-server, fetching it first where it is missing.

    Raises:
        CannotHave: there is none, and apt-get cannot bring one.
    """
    found = redis_server()
    if found is not None:
        return found
    help_ = "install redis-server or valkey-server, or run this on Debian or Ubuntu"
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise CannotHave(f"no redis-server on the PATH and no apt-get: {help_}")
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        fetched = subprocess.run(
            ["apt-get", "download", *_PACKAGES],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        archives = sorted(Path(folder).glob("*.deb"))
        if fetched.returncode or len(archives) < len(_PACKAGES):
            why = fetched.stderr.strip().splitlines()[-1:] or ["nothing came"]
            raise CannotHave(f"apt-get download failed ({why[0]}): apt-get update, or {help_}")
        home = Path(folder) / "redis"
        for archive in archives:
            subprocess.run(["dpkg", "-x", str(archive), str(home)], check=True)
        shutil.rmtree(FOLDER / "redis", ignore_errors=True)
        home.rename(FOLDER / "redis")
    found = redis_server()
    if found is None:
        raise CannotHave(f"the packages hold no redis-server: {help_}")
    return found


def main(arguments: Sequence[str]) -> int:
    for name in arguments or ("redis",):
        if name != "redis":
            print(f"{name}: expected redis", file=sys.stderr)
            return 2
        try:
            print(f"redis: {' '.join(make_redis())}", flush=True)
        except CannotHave as why:
            print(f"redis: {why}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
