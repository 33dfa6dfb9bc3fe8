"""A small right router on real sockets, and the switches that make it wrong.

It is the target of the grader's own tests: an independent reading of the draft, the AIProxy
Standard and their resolutions for levels 2 to 5. It shares no code with what it stands in for.

``RightRouter(config, *defects)`` serves the configuration (the Standard's aiproxy.yaml as a
mapping); ``has("name")`` is true where a defect of that name is switched on. A defect changes
one observable fact, stands at the line that makes the fact, and is named for what is wrong.

    serving.py      sockets and routes; ``ROUTES`` lists every path
    settings.py     the configuration as values
    preferences.py  X-AI request headers: grammar and refusals
    asking.py       one request, understood: ``Ask`` is handed to everything below
    candidates.py   who may serve and in which order: constraints, strategies, hints
    rules.py        the policies' small language
    auto.py         auto parameters: tools, reasoning, token limit, response format
    misled.py       defects of choosing and of auto parameters, level 3
    ensembles.py    several members answer one request
    attempts.py     calling providers: failures, failover, retries, deadline
    wire.py         one HTTP connection to a provider
    dialects.py     what each kind of provider speaks, to and from OpenAI chat
    streams.py      relaying a stream: commit point, errors, clients that leave
    shapes.py       request validation and the answers of each endpoint
    answers.py      X-AI response headers, x-aiproxy, error objects, decision records
    native.py       predict, models, providers, decisions
    pictures.py     the router's own image model
    health.py       outcomes, latencies, circuits
    money.py        prices, ledger, budgets
    security.py     keys, labels, data classes, rate limits, CORS
    workflow.py     conversations, branches, merges
    mesh.py         other nodes
    monitor.py      probes of providers that were left out
"""

from right_router.serving import RightRouter

__all__ = ["RightRouter"]
