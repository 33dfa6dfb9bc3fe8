"""The report as one HTML file: verdict, results, and the redacted bytes of both sides."""

from html import escape
from typing import Final

from aiproxy.conformance.results import Finding, Result, Status
from aiproxy.conformance.running import Report, suite_version
from aiproxy.conformance.wording import step_lines, verdict

_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;
border-bottom:1px solid #ddd;vertical-align:top}pre{background:#f6f6f6;padding:.6rem;overflow:auto;
white-space:pre-wrap;word-break:break-word}.pass{color:#176f2c}.warn{color:#8a5a00}
.fail,.not-testable,.unreachable,.harness-error{color:#b00020;font-weight:600}
.unsupported,.not-run,.inconclusive{color:#666}code{font-size:.9em}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}pre{background:#22252b}
td,th{border-color:#333}.pass{color:#6fd08c}.warn{color:#e0b050}
.fail,.not-testable,.unreachable,.harness-error{color:#ff7b8a}}
"""


def page(report: Report) -> str:
    """Return ``report`` as one HTML document without scripts or outside references."""
    shown = [result for result in report.results if result.status is not Status.NOT_RUN]
    hidden = [result for result in report.results if result.status is Status.NOT_RUN]
    steps = "".join(f"<li>{escape(line)}</li>" for line in step_lines(report))
    rows = "".join(map(_row, sorted(shown, key=_order)))
    exchanges = "".join(
        f'<details id="x{escape(e.label)}"><summary>exchange {escape(e.label)}: '
        f"<code>{escape(e.request.splitlines()[0])}</code></summary>"
        f"<pre>{escape(e.request)}</pre><pre>{escape(e.response)}</pre></details>"
        for e in report.exchanges
    )
    unseen = "".join(
        f"<tr><td><code>{r.check}</code></td><td>{escape(r.title)}</td>"
        f"<td>{escape(r.reason)}</td></tr>"
        for r in hidden
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>AIProxy conformance</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(verdict(report))}</h1>"
        f"<p><code>{escape(report.target)}</code>, mode {report.mode}, seed {report.seed}, "
        f"suite {escape(suite_version())}, {escape(report.started)}, {report.seconds} s, "
        f"{len(report.exchanges)} of at most {report.budget} requests</p><ul>{steps}</ul>"
        f"<table><tr><th>status</th><th>check</th><th>what</th></tr>{rows}</table>"
        f"<h2>Both sides</h2>{exchanges}"
        f"<details><summary>{len(hidden)} requirements that a URL does not show</summary>"
        f"<table>{unseen}</table></details></body></html>\n"
    )


def _order(result: Result) -> tuple[bool, bool, str]:
    return result.status is Status.PASS, result.status is not Status.FAIL, result.check


def _row(result: Result) -> str:
    findings = [f for f in result.findings if f.status is not Status.PASS]
    details = "".join(map(_finding, findings)) or escape(result.reason)
    return (
        f'<tr><td class="{result.status}">{result.status}</td>'
        f"<td><code>{result.check}</code><br>level {result.level} {result.keyword}</td>"
        f"<td>{escape(result.title)} <small>({escape(result.clause)})</small>{details}</td></tr>"
    )


def _finding(finding: Finding) -> str:
    link = f' <a href="#x{escape(finding.exchange)}">bytes</a>' if finding.exchange else ""
    told = f"expected {finding.expected}; found {finding.found}" if finding.expected else ""
    return f"<br>{escape(finding.fact)}: {escape(told or finding.found)}{link}"
