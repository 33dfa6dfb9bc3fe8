"""Whether a peer that closed a kept connection can have read the request sent over it.

A server that closes an idle connection while a request is on its way has read nothing: its farewell
acknowledges none of the request, and the request may be sent again over a new connection. A server
that read the request and then closed has acknowledged it: repeating that is for whoever counts
attempts (AIP-FAIL-004). After a reset nobody can tell, because a reset acknowledges nothing.
"""

import sys
from struct import Struct
from typing import Any, Final

_COUNT: Final = Struct("i")


def surely_unread(sock: Any) -> bool:
    """Tell whether the peer, which said farewell on ``sock``, lacks part of what was sent there.

    ``False`` where the system does not tell.
    """
    if sys.platform != "linux":
        return False
    from fcntl import ioctl
    from termios import TIOCOUTQ

    try:
        left = ioctl(sock.fileno(), TIOCOUTQ, bytes(_COUNT.size))
    except (OSError, ValueError):
        return False
    count: int = _COUNT.unpack(left)[0]
    return count > 0
