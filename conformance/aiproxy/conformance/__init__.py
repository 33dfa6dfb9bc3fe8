"""Grade any OpenAI-compatible endpoint against the AIProxy requirements, from outside.

* ``run(url, options) -> Report``: one run, no pytest needed.
* ``cli_main(argv) -> int``: the command ``aiproxy conformance``.
* ``grade(results, scored)``: the level, a pure function of the results.

What passing does not mean: in mode ``observe`` the suite has only a URL. Level 1 can be proven
that way; nothing about routing can, so levels 2 to 5 are refuted at most. In the modes
``controlled`` and ``attached`` the suite plays the providers behind the target, and every level can
be proven: for the configuration, the checks and the seed of that run.
"""

from aiproxy.conformance.command import cli_main
from aiproxy.conformance.grading import Grade, grade
from aiproxy.conformance.report import Report
from aiproxy.conformance.results import Finding, Result, Status
from aiproxy.conformance.running import Options, run

__all__ = ["Finding", "Grade", "Options", "Report", "Result", "Status", "cli_main", "grade", "run"]
