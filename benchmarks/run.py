"""Benchmarks of the gateway beside others, as ratios from interleaved rounds.

    python benchmarks/run.py json|sse|failover|untouched|startup|micro|translation|ensembles|local|all|smoke
        [options]

See README.md in this folder for what is measured and how to add a peer.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ensembles
import local
import micro
import processes
import translation
from peers import Peer
from session import Session, session
from tables import merged, ratio, table

Runs = dict[tuple[str, str], list[dict[str, float]]]
Found = dict[tuple[str, str], dict[str, float]]

_GATEWAYS = ["direct", "nginx", "raw", "server", "server+headers", "server+log", "asgi", "wsgi"]
_OTHERS = ["portkey", "litellm"]


def rounds(
    peers: Sequence[Peer], cases: Sequence[str], count: int, one: Callable[[Peer, str], Any]
) -> Runs:
    """Every peer in every case, ``count`` times: A B C, then C B A, so that drift hits all alike."""
    runs: Runs = {}
    for number in range(count):
        for case in cases:
            for peer in peers if number % 2 == 0 else peers[::-1]:
                if case.split(":")[0] in peer.kinds:
                    runs.setdefault((peer.name, case), []).append(one(peer, case))
        print(f"round {number + 1} of {count}", file=sys.stderr, flush=True)
    return runs


def split(case: str) -> tuple[str, int]:
    kind, _, connections = case.partition(":")
    return kind, int(connections or 1)


class Report:
    """What a run prints, and whether something did not work."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.figures: dict[str, Any] = {}

    def take(self, name: str, live: Session, runs: Runs) -> Found:
        found = {key: merged(several) for key, several in runs.items()}
        self.faults += [f"{peer}: {why}" for peer, why in live.failed.items()]
        self.faults += [
            f"{peer} {case}: {row['bad']:.0f} requests failed"
            for (peer, case), row in found.items()
            if row["bad"]
        ]
        self.figures[name] = {f"{peer} {case}": row for (peer, case), row in found.items()}
        print(f"\n## {name} (load: {live.load}, upstream: {live.up.name})\n")
        return found


def run_json(options: argparse.Namespace, report: Report) -> None:
    """Whole answers: req/s, latency, CPU, memory."""
    cases = options.cases or ["small:1", "small:16", "small:64", "large:16"]
    with open_session(options, _GATEWAYS + _OTHERS, ["small", "large"]) as live:
        idle = {peer.name: peer.rss_mib() for peer in live.peers}
        for peer in live.peers:
            live.answers(peer, "small", 16, 1)
        runs = rounds(
            live.peers,
            cases,
            options.rounds,
            lambda peer, case: live.answers(peer, *split(case), options.seconds),
        )
        loaded = {peer.name: peer.rss_mib() for peer in live.peers}
        found = report.take("json", live, runs)
        names = [peer.name for peer in live.peers]
        for case in cases:
            print(f"### {case.replace(':', ' body, connections: ')}\n")
            print(_json_table(found, names, case))
        print("### memory and start\n")
        rows = [[n, live.startup_s[n], idle[n], loaded[n]] for n in names if idle[n]]
        print(table(["peer", "first good answer, s", "RSS idle, MiB", "RSS loaded, MiB"], rows))


def _json_table(found: Found, names: Sequence[str], case: str) -> str:
    direct = found.get(("direct", case), {}).get("p50", float("nan"))
    bases = [n for n in ("litellm", "portkey", "nginx") if (n, case) in found]
    rows = []
    for name in names:
        row = found.get((name, case))
        if row is None:
            continue
        ratios = [ratio(row["rps"], found[base, case]["rps"]) for base in bases]
        cpus = [ratio(row["cpu"], found[base, case]["cpu"]) for base in bases if row["cpu"]]
        cpus += [float("nan")] * (len(bases) - len(cpus))
        rows.append(
            [
                *(name, *ratios, *cpus, row["rps"], row["cpu"] or float("nan")),
                *(row["p50"], row["p50"] - direct, row["p99"]),
            ]
        )
    head = [
        *("peer", *(f"req/s over {b}" for b in bases), *(f"CPU over {b}" for b in bases)),
        *("req/s", "CPU us", "p50 ms", "added p50 ms", "p99 ms"),
    ]
    return table(head, rows)


def run_sse(options: argparse.Namespace, report: Report) -> None:
    """Streams of 100 events: one after another, 32 at a pace, 32 as fast as they go."""
    cases = options.cases or ["sse:1", "paced:32", "sse:32"]
    names = [n for n in _GATEWAYS + _OTHERS if n not in ("server+headers", "server+log")]
    with open_session(options, names, ["sse", "paced"]) as live:
        for peer in live.peers:
            live.streams(peer, "sse", 4, 2)

        def one(peer: Peer, case: str) -> dict[str, float]:
            kind, connections = split(case)
            return live.streams(peer, kind, connections, 50 if connections == 1 else options.each)

        runs = rounds(live.peers, cases, options.rounds, one)
        found = report.take("sse", live, runs)
        for case in cases:
            print(f"### {case.replace(':', ', streams at once: ')}\n")
            base = found.get(("direct", case), {}).get("ttfb", float("nan"))
            rows = []
            for peer in live.peers:
                row = found.get((peer.name, case))
                if row is not None:
                    cpu = row["cpu"] or float("nan")
                    against = found.get(("raw", case), {}).get("cpu", float("nan"))
                    rows.append(
                        [
                            *(peer.name, ratio(cpu, against), cpu, row["events_s"], row["ttfb"]),
                            *(row["ttfb"] - base, row["ttfb_p99"], row["gap_p99"]),
                        ]
                    )
            head = [
                *("peer", "CPU over raw", "CPU us an event", "events/s", "first byte p50 ms"),
                *("added ms", "first byte p99 ms", "gap p99 ms"),
            ]
            print(table(head, rows))


def run_failover(options: argparse.Namespace, report: Report) -> None:
    """The first provider answers 500 or refuses the connection; the second one is healthy."""
    names = [n for n in _GATEWAYS + _OTHERS if n not in ("direct", "server+headers", "server+log")]
    with open_session(options, names, ["small", "fo500", "refused"]) as live:
        cases = [
            f"{kind}:{at}" for at, kind in itertools.product((1, 16), ("small", "fo500", "refused"))
        ]
        for peer in live.peers:
            live.answers(peer, "small", 8, 1)
        runs = rounds(
            live.peers,
            cases,
            options.rounds,
            lambda peer, case: live.answers(peer, *split(case), options.seconds),
        )
        found = report.take("failover", live, runs)
        for at in (1, 16):
            print(f"### connections: {at}\n")
            rows: list[list[str | float]] = []
            for peer in live.peers:
                healthy = found[peer.name, f"small:{at}"]
                row: list[str | float] = [peer.name, healthy["p50"]]
                for kind in ("fo500", "refused"):
                    broken = found[peer.name, f"{kind}:{at}"]
                    row += [broken["p50"] - healthy["p50"], ratio(broken["rps"], healthy["rps"])]
                rows.append(row)
            head = [
                *("peer", "healthy p50 ms", "500: added ms", "500: req/s over healthy"),
                *("refused: added ms", "refused: req/s over healthy"),
            ]
            print(table(head, rows))


def run_untouched(options: argparse.Namespace, report: Report) -> None:
    """A page of an application, without the middleware and through it."""
    with open_session(options, ["page", "page+mw"], ["page"]) as live:
        for peer in live.peers:
            live.answers(peer, "page", 16, 1)
        runs = rounds(
            live.peers,
            ["page:16"],
            max(6, options.rounds * 2),
            lambda peer, case: live.answers(peer, "page", 16, options.seconds),
        )
        found = report.take("untouched", live, runs)
        rows = [[name, row["rps"], row["cpu"], row["p50"]] for (name, _), row in found.items()]
        print(table(["peer", "req/s", "CPU us", "p50 ms"], rows))
        if len(found) == 2:
            added = found["page+mw", "page:16"]["cpu"] - found["page", "page:16"]["cpu"]
            print(f"Added to an untouched request: {added:.2f} us of CPU.\n")
            report.figures["untouched added us"] = added


def run_startup(options: argparse.Namespace, report: Report) -> None:
    """Seconds to the first good answer, memory then and after some load."""
    names = ["nginx", "raw", "server", "asgi", "wsgi", *_OTHERS]
    rows = []
    with open_session(options, [], []) as live:
        for name in options.peers or names:
            took = []
            for _ in range(options.rounds):
                peer = live.add(name, ["small"])
                if peer is None:
                    break
                took.append(live.startup_s[name])
                idle = peer.rss_mib()
                live.answers(peer, "small", 16, 2)
                loaded = peer.rss_mib()
                peer.stop()
                live.peers.remove(peer)
            if took:
                rows.append([name, sorted(took)[len(took) // 2], idle, loaded])
                report.figures.setdefault("startup", {})[name] = rows[-1][1:]
        report.faults += [f"{peer}: {why}" for peer, why in live.failed.items()]
    print("\n## startup\n")
    print(table(["peer", "first good answer, s", "RSS idle, MiB", "RSS loaded, MiB"], rows))


def run_micro(options: argparse.Namespace, report: Report) -> None:
    """Parts of a request inside one process."""
    report.figures["micro"] = micro.main(rounds=max(3, options.rounds * 3))


def run_translation(options: argparse.Namespace, report: Report) -> None:
    """Crossings from one dialect to another inside one process."""
    report.figures["translation"] = translation.main(rounds=max(20, options.rounds * 10))


def run_ensembles(options: argparse.Namespace, report: Report) -> None:
    """An ensemble of three beside its slowest member alone, on both mounts."""
    print("\n## ensembles\n")
    report.figures["ensembles"], missed = ensembles.main(rounds=options.rounds)
    report.faults += missed


def run_local(options: argparse.Namespace, report: Report) -> None:
    """Streams of a local model: many over one, and the server over the adapter."""
    print("\n## local\n")
    report.figures["local"], missed = local.main(rounds=options.rounds)
    report.faults += missed


def run_all(options: argparse.Namespace, report: Report) -> None:
    for run in (
        run_micro,
        run_translation,
        run_untouched,
        run_json,
        run_sse,
        run_failover,
        run_ensembles,
        run_local,
        run_startup,
    ):
        run(options, report)


def run_smoke(options: argparse.Namespace, report: Report) -> None:
    """Everything of ours once and shortly, with neither nginx nor wrk: does it work?"""
    options.plain, options.rounds, options.seconds, options.each = True, 1, 0.3, 1
    options.peers, options.peer = None, []
    micro.main(rounds=1, budget_s=0.002)
    translation.main(rounds=2, budget_s=0.0)
    ensembles.main(rounds=1, requests=1)
    local.main(rounds=1, tokens=8, streams=4, size="small")
    ours = ["direct", "raw", "asgi", "wsgi", "server", "server+headers"]
    with open_session(options, [*ours, "page", "page+mw"], ["small", "page"]) as live:
        missing = [n for n in (*ours, "page", "page+mw") if n not in [p.name for p in live.peers]]
        report.faults += [f"{name} was left out" for name in missing if name not in live.failed]
        whole = rounds(
            live.peers,
            ["small:4", "fo500:4", "refused:4", "page:4"],
            1,
            lambda peer, case: live.answers(peer, *split(case), options.seconds),
        )
        whole |= rounds(
            [p for p in live.peers if p.name != "page"],
            ["sse:2"],
            1,
            lambda peer, case: live.streams(peer, *split(case), 1),
        )
        found = report.take("smoke", live, whole)
        rows = [[*key, row["requests"], row["bad"]] for key, row in found.items()]
        print(table(["peer", "case", "requests", "failed"], rows))


def open_session(options: argparse.Namespace, names: Sequence[str], kinds: Sequence[str]) -> Any:
    programs = dict(pair.split("=", 1) for pair in options.peer)
    wanted = list(options.peers or names) if names else []
    if names and not options.peers:
        wanted = [n for n in wanted if n not in _OTHERS or n in programs]
        wanted += [name for name in programs if name not in wanted]
    return session(wanted, kinds, programs=programs, plain=options.plain)


RUNS: dict[str, Callable[[argparse.Namespace, Report], None]] = {
    "json": run_json,
    "sse": run_sse,
    "failover": run_failover,
    "untouched": run_untouched,
    "startup": run_startup,
    "micro": run_micro,
    "translation": run_translation,
    "ensembles": run_ensembles,
    "local": run_local,
    "all": run_all,
    "smoke": run_smoke,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=list(RUNS))
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="litellm, portkey, or any gateway: {port} and {routes} are filled in. Repeatable.",
    )
    parser.add_argument("--peers", type=lambda text: text.split(","), help="only these")
    parser.add_argument("--cases", type=lambda text: text.split(","), help="e.g. small:1,small:16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="of each run")
    parser.add_argument("--each", type=int, default=2, help="streams a connection and run")
    parser.add_argument("--plain", action="store_true", help="neither nginx nor wrk")
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    report = Report()
    print(f"gateway on CPU {processes.GATEWAY_CPU}, load and upstream on {processes.LOAD_CPU}")
    RUNS[options.what](options, report)
    if options.out:
        options.out.write_text(json.dumps(report.figures, indent=1))
    for fault in report.faults:
        print(f"DOES NOT WORK: {fault}", file=sys.stderr)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
