"""The report as one HTML file: verdict, results, and the redacted bytes of both sides."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from aiproxy.conformance.report import Report, suite_version
from aiproxy.conformance.results import RED, Finding, Result, Status
from aiproxy.conformance.wording import baseline_lines, profile_line, step_lines, verdict

if TYPE_CHECKING:
    from aiproxy.conformance.endpoint import Exchange

# A file that mail programs and code review still open.
_MOST: Final = 2_800_000
_FULL, _HEADS, _LINE = 2, 1, 0
# How much is shown of the exchanges behind findings, and of the others: the first that fits.
_DETAIL: Final = ((_FULL, _FULL), (_FULL, _HEADS), (_FULL, _LINE), (_HEADS, _LINE), (_LINE, _LINE))
# The filters: a name for the radio button, its words, and the class of results it leaves visible.
_FILTERS: Final = (
    ("measured", "all that was looked at"),
    ("red", "red"),
    ("warned", "warnings"),
    ("open", "no verdict"),
    ("passed", "passed"),
    ("unseen", "not run"),
)
_GROUP: Final = {
    Status.PASS: "passed",
    Status.WARN: "warned",
    Status.NOT_RUN: "unseen",
    **dict.fromkeys((Status.UNSUPPORTED, Status.INCONCLUSIVE), "open"),
    **dict.fromkeys(RED, "red"),
}
_STYLE: Final = """
:root{color-scheme:light dark;--line:#ddd;--back:#f6f6f6;--good:#176f2c;--warn:#8a5a00;--bad:#b00020;
--dim:#666}
@media(prefers-color-scheme:dark){:root{--line:#333;--back:#22252b;--good:#6fd08c;--warn:#e0b050;
--bad:#ff7b8a;--dim:#999}}
body{font:15px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}code{font-size:.9em}small{color:var(--dim)}
pre{background:var(--back);padding:.6rem;overflow:auto;white-space:pre-wrap;word-break:break-word;
margin:.3rem 0}
pre.upstream{border-left:3px solid var(--warn)}
input{margin:0 .2rem 0 .8rem}label{cursor:pointer}
.r{border-bottom:1px solid var(--line);padding:.2rem 0}.r summary,.x summary{cursor:pointer}
.s{display:inline-block;min-width:7.5rem}.passed .s{color:var(--good)}.warned .s{color:var(--warn)}
.red .s{color:var(--bad);font-weight:600}.open .s,.unseen .s{color:var(--dim)}
"""


def page(report: Report) -> str:
    """Return ``report`` as one HTML document without scripts or outside references.

    It stays below some 3 MB: what passed loses its bodies first, then its bytes.
    """
    head, results = _head(report), "".join(map(_result, sorted(report.results, key=_order)))
    room = _MOST - len((head + results).encode("utf-8", "replace"))
    return (
        f"{head}{results}<h2>Both sides</h2>"
        "<p>What the client and the target said, and below it what the suite's own providers saw "
        "and answered. Keys are masked.</p>"
        f"{_exchanges(report, room)}</main></body></html>\n"
    )


def _head(report: Report) -> str:
    lines = [*step_lines(report), *([] if report.partial else [profile_line(report)])]
    lines += baseline_lines(report)
    lines += [f"world {w.name}: {w.fault}" for w in report.worlds if w.fault]
    about = " ".join(filter(None, (report.about.implementation, report.about.version)))
    facts = (
        f"mode {report.mode}",
        f"seed {report.seed}",
        f"suite {suite_version()}",
        report.started,
        f"{report.seconds} s",
        f"{len(report.exchanges)} of at most {report.budget} requests",
        f"worlds: {', '.join(world.name for world in report.worlds)}" if report.worlds else "",
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>AIProxy conformance</title>'
        f"<style>{_STYLE}{_filter_rules()}</style></head><body>"
        f"<h1>{escape(verdict(report))}</h1>"
        f"<p>{escape(about)} <code>{escape(report.target)}</code><br>"
        f"<small>{escape(', '.join(filter(None, facts)))}</small><br>"
        f"<small><code>{escape(report.command)}</code></small></p>"
        f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
        f"{_filters(report.results)}<main>"
    )


def _filter_rules() -> str:
    """The style rules that make the radio buttons work without a script."""
    rules = ["#f-measured:checked~main .unseen{display:none}"]
    rules += [f"#f-{name}:checked~main .r:not(.{name}){{display:none}}" for name, _ in _FILTERS[1:]]
    rules += [f"#l-{n}:checked~main .r:not(.l{n}){{display:none}}" for n in range(1, 6)]
    return "".join(rules)


def _filters(results: Iterable[Result]) -> str:
    groups = [_GROUP[result.status] for result in results]
    shown = []
    for number, (name, words) in enumerate(_FILTERS):
        count = len(groups) - groups.count("unseen") if name == "measured" else groups.count(name)
        shown.append(_radio("f", name, f"{words} ({count})", chosen=number == 0))
    shown.append("<br>" + _radio("l", "any", "any level", chosen=True))
    shown += [_radio("l", str(n), f"level {n}", chosen=False) for n in range(1, 6)]
    return "".join(shown)


def _radio(group: str, name: str, words: str, *, chosen: bool) -> str:
    checked = " checked" if chosen else ""
    return (
        f'<input type="radio" name="{group}" id="{group}-{name}"{checked}>'
        f'<label for="{group}-{name}">{escape(words)}</label>'
    )


def _order(result: Result) -> tuple[int, bool, int, str]:
    rank = ("red", "warned", "open", "passed", "unseen").index(_GROUP[result.status])
    return rank, result.status is not Status.FAIL, result.level, result.check


def _result(result: Result) -> str:
    group = _GROUP[result.status]
    facts = [f"level {result.level}", result.keyword]
    facts += ["scored"] if result.scored else []
    facts += [f"world {result.world}"] if result.world else []
    facts += [f"cause: {result.cause}"] if result.cause else []
    findings = "".join(map(_finding, result.findings)) if group != "passed" else _seen(result)
    return (
        f'<details class="r {group} l{result.level}"><summary><span class="s">{result.status}</span>'
        f"<code>{escape(result.check)}</code> {escape(result.title)}</summary>"
        f"<small>{escape(', '.join(facts))}; {escape(result.clause)}</small>"
        f"<ul>{findings or f'<li>{escape(result.reason)}</li>'}</ul></details>"
    )


def _seen(result: Result) -> str:
    """The facts of a pass in one line, with a link to the first bytes that show them."""
    links = [_link(finding) for finding in result.findings if finding.exchange]
    facts = "; ".join(escape(finding.fact) for finding in result.findings)
    return f"<li>{facts}{links[0] if links else ''}</li>"


def _finding(finding: Finding) -> str:
    told = f"expected {finding.expected}; found {finding.found}" if finding.expected else ""
    said = escape(f"{finding.fact}: {told or finding.found}".removesuffix(": "))
    return f"<li>{finding.status}: {said}{_link(finding)}</li>"


def _link(finding: Finding) -> str:
    return f' <a href="#x{escape(finding.exchange)}">bytes</a>' if finding.exchange else ""


def _exchanges(report: Report, room: int) -> str:
    wanted = {
        finding.exchange
        for result in report.results
        if _GROUP[result.status] not in ("passed", "unseen")
        for finding in result.findings
    }
    shown = ""
    for behind, others in _DETAIL:
        detail = {exchange.label: others for exchange in report.exchanges}
        detail |= dict.fromkeys(wanted & set(detail), behind)
        shown, complete = _up_to(room, (_exchange(e, detail[e.label]) for e in report.exchanges))
        if complete:
            return shown
    return f"{shown}<p>The rest did not fit.</p>"


def _up_to(room: int, texts: Iterable[str]) -> tuple[str, bool]:
    """Return as many of ``texts`` as fit into ``room`` bytes, and whether those are all."""
    kept: list[str] = []
    for text in texts:
        room -= len(text.encode("utf-8", "replace"))
        if room < 0:
            return "".join(kept), False
        kept.append(text)
    return "".join(kept), True


def _exchange(exchange: "Exchange", detail: int) -> str:
    """One exchange as its first line, its heads, or in full."""
    label, first = escape(exchange.label), escape((exchange.request.splitlines() or [""])[0])
    status = escape((exchange.response.splitlines() or [""])[0])
    title = f"exchange {label}: <code>{first}</code> {status}"
    if detail == _LINE:
        return f'<details class="x"><summary id="x{label}">{title}</summary></details>'
    texts: Sequence[tuple[str, str]] = (
        (f' id="x{label}"', exchange.request),
        ("", exchange.response),
        *((' class="upstream"', seen) for seen in exchange.upstream),
    )
    shown = "".join(f"<pre{kind}>{escape(_cut(text, detail))}</pre>" for kind, text in texts)
    return f'<details class="x"><summary>{title}</summary>{shown}</details>'


def _cut(text: str, detail: int) -> str:
    head, blank, body = text.partition("\n\n")
    return f"{head}\n\n(the body is left out)" if detail == _HEADS and blank and body else text
