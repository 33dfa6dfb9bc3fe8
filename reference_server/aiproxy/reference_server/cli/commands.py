"""The commands. Modules that take time to import are imported by the command that needs them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from aiproxy.reference_server.cli.simulating import simulate

if TYPE_CHECKING:
    from aiproxy.middleware.config import Config

CONFIG = click.option(
    "--config",
    "path",
    type=click.Path(dir_okay=False),
    help="An aiproxy.yaml or .json; without it the embedded default.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aiproxy", prog_name="aiproxy")
def aiproxy() -> None:
    """Multi-provider AI inference over HTTP: one OpenAI API, many providers."""


@aiproxy.command()
@CONFIG
@click.option("--host", help="Address to bind, instead of server.listen_addr's.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to bind; 0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes on one socket.")
@click.option("--peers", help="Mesh peers as id=host:port,... (not in this release).")
@click.option(
    "--allow-unenforced",
    is_flag=True,
    help="Start although the configuration asks for protections this release does not give.",
)
def serve(
    path: str | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    peers: str | None,
    allow_unenforced: bool,
) -> None:
    """Run the server. Says `listening on http://H:P` on stderr once it does."""
    from aiproxy.middleware import ConfigInvalid
    from aiproxy.reference_server.starting import CannotListen, StartRefused, prepare

    if peers:
        _usage("--peers: the mesh is not part of this release; leave it out")
    try:
        start = prepare(path, host=host, port=port, allow_unenforced=allow_unenforced)
        from aiproxy.reference_server.serving import serve as run

        code = run(start, workers=workers)
    except (ConfigInvalid, StartRefused) as fault:
        _usage(str(fault))
    except CannotListen as fault:
        click.echo(str(fault), err=True)
        code = 1
    sys.exit(code)


@aiproxy.group()
def config() -> None:
    """Look at a configuration without running it."""


@config.command("check")
@click.argument("file", type=click.Path())
@click.option("--lenient", is_flag=True, help="Unknown keys warn instead of failing.")
def config_check(file: str, lenient: bool) -> None:
    """Exit 0 when FILE is sound, else 2 with file:line: key: found, expected."""
    loaded = _load(file, lenient=lenient)
    for problem in loaded.warnings:
        click.echo(f"warning: {problem}", err=True)
    models = sum(len(p["models"]) for p in loaded.values["providers"].values() if p["enabled"])
    enabled = sum(p["enabled"] for p in loaded.values["providers"].values())
    click.echo(f"{file}: sound; {enabled} providers, {models} models")


@config.command("show")
@click.argument("file", type=click.Path())
@AS_JSON
def config_show(file: str, as_json: bool) -> None:
    """Print FILE with every default filled in and secrets masked."""
    shown = _load(file).masked()
    if as_json:
        _print_json(shown)
    else:
        import yaml

        click.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), nl=False)


@config.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration."""
    from aiproxy.spec import schema

    _print_json(schema("config"))


@aiproxy.command()
@CONFIG
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Repeatable.")
@click.option(
    "--endpoint",
    "--path",
    "endpoint",
    default=None,
    help="Path the request would be sent to; default by the body's shape.",
)
@click.option(
    "--json/--table",
    "as_json",
    default=None,
    help="The decision record, or what a reader needs of it; the table is for terminals.",
)
@click.argument("body", type=click.Path(allow_dash=True))
def explain(
    path: str | None,
    headers: Sequence[str],
    endpoint: str | None,
    as_json: bool | None,
    body: str,
) -> None:
    """Print the decision record the request in BODY (a file, or -) would get. Calls nobody.

    Exit 1 when the request would be refused.
    """
    from aiproxy.middleware import ConfigInvalid
    from aiproxy.reference_server.explaining import Unusable, explain_request

    try:
        raw = sys.stdin.buffer.read() if body == "-" else Path(body).read_bytes()
        record = explain_request(path, headers, endpoint, raw)
    except (ConfigInvalid, Unusable) as fault:
        _usage(str(fault))
    except OSError as fault:
        _usage(f"{body}: {fault.strerror}")
    if not sys.stdout.isatty() if as_json is None else as_json:
        _print_json(record)
    else:
        from aiproxy.reference_server.explained import print_record

        print_record(record)
    sys.exit(1 if record.get("error") else 0)


aiproxy.add_command(simulate)


@aiproxy.group(invoke_without_command=True)
@CONFIG
@AS_JSON
@click.pass_context
def models(context: click.Context, path: str | None, as_json: bool) -> None:
    """List the models a configuration offers; `check` looks at a model folder."""
    if context.invoked_subcommand is not None:
        return
    from aiproxy.reference_server.listing import model_rows

    rows = model_rows(_load_or_embedded(path))
    _table(rows, as_json, title="models")


@models.command("check")
@click.argument("place", metavar="DIR", type=click.Path())
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--tokenizer", type=click.Path(), help="Where tokenizer.json lies, if not in DIR.")
@click.option("--chat-template", help="A Jinja file, or the template itself.")
@click.option("--max-context", type=click.IntRange(1), help="Tokens, where no file says it.")
@AS_JSON
def models_check(place: str, as_json: bool, **given: Any) -> None:
    """Say what the model in DIR (a folder, an .onnx or .pt2 file) is and can do, and try it.

    Exit 0 when it can be served here, 1 when not, 2 when there is nothing at DIR.
    """
    from aiproxy.reference_server.onnx.checking import check
    from aiproxy.reference_server.onnx.folders import DEMO

    if place != DEMO and not Path(place).exists():
        _usage(f"{place}: there is nothing here")
    report = check(place, given)
    if as_json:
        _print_json(report)
    else:
        for key, value in report.items():
            _print_fact(key, value)
    sys.exit(0 if report["serves"] else 1)


def _print_fact(key: str, value: Any) -> None:
    """One line of a report; a size in bytes is told in a unit people read."""
    for one in value if key == "notes" else (value,):
        if one in (None, "", []):
            continue
        shown = ", ".join(map(str, one)) if isinstance(one, list) else str(one)
        if key.endswith("_bytes") and isinstance(one, int):
            key, shown = key.removesuffix("_bytes"), f"{one / 2**20:,.1f} MiB"
        if isinstance(one, bool):
            shown = "yes" if one else "no"
        click.echo(f"{key.removesuffix('s') if key == 'notes' else key:16} {shown}")


@aiproxy.command()
@CONFIG
@AS_JSON
def providers(path: str | None, as_json: bool) -> None:
    """List the providers of a configuration."""
    from aiproxy.reference_server.listing import provider_rows

    rows = provider_rows(_load_or_embedded(path))
    _table(rows, as_json, title="providers")


@aiproxy.command()
@CONFIG
@click.option(
    "--by",
    default="day,key,provider,model",
    help="What to add up by, some of day,key,provider,model; empty: one sum.",
)
@click.option("--since", default="", metavar="YYYY-MM-DD", help="First day (UTC).")
@AS_JSON
def costs(path: str | None, by: str, since: str, as_json: bool) -> None:
    """Print what was spent, from the ledger that budget.cost_db names."""
    from aiproxy.middleware.money.ledger import LedgerUnusable
    from aiproxy.reference_server.costs import BadQuestion, cost_rows

    try:
        rows, total = cost_rows(_load_or_embedded(path), by, since)
    except BadQuestion as fault:
        _usage(str(fault))
    except LedgerUnusable as fault:
        click.echo(str(fault), err=True)
        sys.exit(1)
    if as_json:
        _print_json({"costs": rows, "total_usd": total})
    else:
        _table(rows, False, title="costs")
        click.echo(f"total: {total:.6f} USD")


@aiproxy.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def conformance(arguments: Sequence[str]) -> None:
    """Grade an endpoint: aiproxy conformance URL [--level N] [--launch CMD] ..."""
    try:
        from aiproxy.conformance import cli_main
    except ImportError:
        _usage("this needs: pip install 'aiproxy[conformance]'")
    sys.exit(cli_main(list(arguments)))


def _load(file: str, *, lenient: bool = False) -> "Config":
    from aiproxy.middleware import ConfigInvalid, load_config
    from aiproxy.reference_server.configuration import BASE

    try:
        return load_config(file, lenient=lenient, base=BASE)
    except ConfigInvalid as fault:
        _usage(str(fault))


def _load_or_embedded(path: str | None) -> "Config":
    from aiproxy.middleware import ConfigInvalid
    from aiproxy.reference_server.configuration import read_config

    try:
        return read_config(path)
    except ConfigInvalid as fault:
        _usage(str(fault))


def _usage(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(2)


def _print_json(document: Any) -> None:
    import orjson

    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def _table(rows: list[dict[str, Any]], as_json: bool, *, title: str) -> None:
    if as_json:
        _print_json({title: rows})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*("-" if value in (None, "") else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
