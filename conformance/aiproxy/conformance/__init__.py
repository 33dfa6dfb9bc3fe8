"""Grade any OpenAI-compatible endpoint against the AIProxy requirements, from outside.

* ``run(url, options) -> Report``: one run, no pytest needed.
* ``cli_main(argv) -> int``: the command ``aiproxy conformance``.
* ``grade(results)``: the level, a pure function of the results.

What passing does not mean: in mode ``observe`` the suite has only a URL. Level 1 can be proven
that way; nothing about routing can, so levels 2 to 5 stay unmeasured however good they are.
"""

from aiproxy.conformance.command import cli_main
from aiproxy.conformance.grading import Grade, grade
from aiproxy.conformance.results import Finding, Result, Status
from aiproxy.conformance.running import Options, Report, run

__all__ = ["Finding", "Grade", "Options", "Report", "Result", "Status", "cli_main", "grade", "run"]
