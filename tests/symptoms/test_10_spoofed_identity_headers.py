"""Who a client is follows from its credential alone; headers that claim it are not believed, and
reach neither providers nor the host application's trust."""

from typing import Any

import pytest

SPOOFED = {
    "X-Authz-User-Id": "root",
    "X-Authz-User-Roles": "admin",
    "X-User-Id": "root",
    "X-Remote-User": "root",
    "X-Auth-Request-User": "root",
    "X-Forwarded-User": "root",
    "X-Consumer-Username": "root",
    "X-AIProxy-Hops": "0",
    "X-AIProxy-Origin-Node": "trusted",
    "X-AI-Internal-Role": "admin",
    "X-Real-Ip": "127.0.0.1",
}


@pytest.mark.parametrize("name", sorted(SPOOFED))
def test_a_claim_changes_nothing_and_goes_nowhere(
    mount: Any, duo: Any, best: Any, fakes: Any, name: str
) -> None:
    served = mount(duo())
    plain = served.chat(best)
    got = served.chat({**best, name: SPOOFED[name]})
    assert (got.status, got.provider) == (plain.status, plain.provider) == (200, "a")
    for seen in fakes.a.seen:
        assert name.lower() not in seen.headers
        assert SPOOFED[name] not in str(seen.body)
    first, second = served.record(plain), served.record(got)
    same = ("requested", "candidates", "constraints", "security")
    told = [{k: record.get(k) for k in same if k != "candidates"} for record in (first, second)]
    assert told[0] == told[1]
    names = [[row["provider"] for row in record["candidates"]] for record in (first, second)]
    assert names[0] == names[1]


def test_a_claim_opens_no_door_that_a_label_shuts(
    mount: Any, duo: Any, best: Any, fakes: Any
) -> None:
    served = mount(duo())
    for name, value in SPOOFED.items():
        got = served.chat({**best, name: value, "X-AI-Security-Requirements": "hipaa"})
        assert (got.status, got.error["code"]) == (422, "unsupported_security_requirement")
    assert fakes.called() == {}
