"""A header or a routing member of the wrong form is a 400 that names it, and nobody is called."""

from typing import Any

import pytest
from mounts import HELLO, RESPONSES

from aiproxy.spec import HEADERS

WRONG = {
    "X-AI-Multi-Provider": ["maybe", "1", '{"a":1}'],
    "X-AI-Routing-Strategy": ['{"strategy":5}', "[]", "fastest!"],
    "X-AI-Max-Latency": ["soon", "-1", "1e9999", "NaN", "{}", "1.5"],
    "X-AI-Cost-Limit": ["free", "-0.1", "NaN", "inf", "[]", "0x1"],
    "X-AI-Quality-Threshold": ["high", "2", "-1", "NaN"],
    "X-AI-Failover-Policy": ["sometimes", "{}", "[null]"],
    "X-AI-Provider-Pool": [",", ""],
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_each_is_a_400_that_names_the_header(mount: Any, duo: Any, fakes: Any, name: str) -> None:
    served = mount(duo())
    for value in WRONG[name]:
        got = served.chat({name: value})
        assert got.status == 400, (name, value)
        assert (got.error["type"], got.error["param"]) == ("invalid_request_error", name)
        assert set(got.error) >= {"message", "type", "param", "code"}
    assert fakes.called() == {}


def test_the_names_here_are_fields_of_the_register() -> None:
    assert set(WRONG) <= set(HEADERS)


@pytest.mark.parametrize("value", [5, "fast", [1], {"strategy": 5}, {"timeout": []}, True])
def test_the_routing_member(mount: Any, duo: Any, fakes: Any, value: Any) -> None:
    got = mount(duo()).post(
        RESPONSES,
        {"model": "auto", "messages": HELLO, "routing": value},
        {"X-AI-Task-Hint": "chat"},
    )
    assert got.status in (200, 400)
    if got.status == 400:
        assert (got.error["param"] or "").startswith("routing")
        assert fakes.called() == {}
