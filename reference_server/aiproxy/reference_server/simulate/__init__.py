"""Runs a configuration against scripted providers and traffic in virtual time.

The engine is the one that serves: the same gateway, exchanges, health and prices, with a clock that
jumps from one event to the next and providers that answer by script. No socket, no waiting; the same
scenario and seed give the same result.

    from aiproxy.reference_server.simulate import simulate

    def test_canary() -> None:
        result = simulate("scenarios/canary.yaml")
        assert 0.03 < result.shares["new"] < 0.07
"""

from aiproxy.middleware.config import ConfigInvalid
from aiproxy.reference_server.simulate.breakers import Transition
from aiproxy.reference_server.simulate.clock import Stuck
from aiproxy.reference_server.simulate.conditions import Check
from aiproxy.reference_server.simulate.loading import load
from aiproxy.reference_server.simulate.result import Measures, Result, Row, Spent
from aiproxy.reference_server.simulate.running import simulate
from aiproxy.reference_server.simulate.scenario import Phase, Scenario, Template
from aiproxy.reference_server.simulate.scripts import Script, Trouble, Window
from aiproxy.reference_server.simulate.spreads import Spread, fixed

__all__ = [
    "Check",
    "ConfigInvalid",
    "Measures",
    "Phase",
    "Result",
    "Row",
    "Scenario",
    "Script",
    "Spent",
    "Spread",
    "Stuck",
    "Template",
    "Transition",
    "Trouble",
    "Window",
    "fixed",
    "load",
    "simulate",
]
