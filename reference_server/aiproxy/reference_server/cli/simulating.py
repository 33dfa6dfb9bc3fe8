"""``aiproxy simulate``: a scenario from the command line."""

import sys

import click


@click.command()
@click.argument("scenario", type=click.Path())
@click.option(
    "--config",
    "config",
    type=click.Path(dir_okay=False),
    help="An aiproxy.yaml in the place of the scenario's own: the same traffic, another file.",
)
@click.option("--seed", type=click.IntRange(0, 2**53), help="Instead of the scenario's.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
@click.option(
    "--plot", metavar="FILE", type=click.Path(dir_okay=False), help="Draw it: .png, .svg or .pdf."
)
def simulate(
    scenario: str, config: str | None, seed: int | None, as_json: bool, plot: str | None
) -> None:
    """Run SCENARIO in virtual time: shares, costs, percentiles, circuits. Calls nobody.

    Exit 0 when all that the scenario expects holds, 1 when something does not, 2 for a bad scenario.
    """
    from aiproxy.reference_server.simulate import ConfigInvalid, Stuck
    from aiproxy.reference_server.simulate import simulate as run
    from aiproxy.reference_server.simulate.plotting import CannotPlot, check_plot
    from aiproxy.reference_server.simulate.plotting import plot as draw

    try:
        if plot is not None:
            check_plot(plot)
        result = run(scenario, config=config, seed=seed)
        if plot is not None:
            draw(result, plot)
    except (ConfigInvalid, CannotPlot) as fault:
        click.echo(str(fault), err=True)
        sys.exit(2)
    except Stuck as fault:
        click.echo(f"{scenario}: the run has no end: {fault}", err=True)
        sys.exit(2)
    if as_json:
        import orjson

        click.echo(orjson.dumps(result.as_dict(), option=orjson.OPT_INDENT_2).decode())
    else:
        from aiproxy.reference_server.simulate.printing import print_result

        print_result(result)
    sys.exit(0 if result.ok else 1)
