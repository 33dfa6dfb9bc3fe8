"""A plain proxy: it hands every request to its one provider, and knows nothing of AIProxy.

All it changes is the credential and the name of the model, there and back.
"""

import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from right_server import Handler, RightServer

_OWN = {"host", "authorization", "connection", "content-length", "transfer-encoding"}


class PassThrough(RightServer):
    """Forwards to the default provider of a rendered configuration until the block ends."""

    def __init__(self, config: Mapping[str, Any], port: int) -> None:
        super().__init__(handler=Forward, port=port)
        provider = config["providers"][config["routing"]["default_provider"]]
        self.provider = urlsplit(provider["endpoint"]).netloc
        self.provider_key = provider["credentials"]["api_key"]
        model = provider["models"][0]
        self.ours, self.theirs = model["name"].encode(), model["model"].encode()


class Forward(Handler):
    """One request, sent on as it is with the provider's key."""

    server: PassThrough

    def route(self) -> None:
        """Relay the answer as it comes, without its connection's own fields."""
        fields = {n: v for n, v in self.headers.items() if n.lower() not in _OWN}
        fields["Authorization"] = f"Bearer {self.server.provider_key}"
        provider = http.client.HTTPConnection(self.server.provider, timeout=20)
        try:
            content = self.content.replace(self.server.ours, self.server.theirs)
            path = self.path.replace(self.server.ours.decode(), self.server.theirs.decode())
            provider.request(self.command, path, content, fields)
            answer = provider.getresponse()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _OWN:
                    self.send_header(name, value)
            self.close_connection = True
            self.send_header("Connection", "close")
            self.end_headers()
            while line := answer.readline():
                self.wfile.write(line.replace(self.server.theirs, self.server.ours))
        except (OSError, http.client.HTTPException):
            self.close_connection = True
        finally:
            provider.close()


@contextmanager
def pass_through(config: Path, port: int) -> Iterator[str]:
    """Start a pass-through proxy; a launcher for controlled mode."""
    with PassThrough(yaml.safe_load(config.read_text()), port) as proxy:
        yield proxy.url
