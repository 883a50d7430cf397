"""The table of commands. Each lives in its own module; here they get their names, in the order that ``--help`` shows them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import click
import typer

from lambent import __version__
from lambent.cli import backup, deploy, dev, doctor, environments, events, functions, invoke, logs, restore
from lambent.cli.screen import Trouble, remark

app = typer.Typer(
    name="lambent",
    help="AWS Lambda that you own: run, deploy, invoke and watch functions on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("up")
def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [default: 4566]", min=1, max=65_535)] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept. [default: .lambent]")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file; see docs/settings.md.")] = None,
    database: Annotated[str | None, typer.Option(help="postgresql://...: keep the state there. [default: SQLite in --data-dir]")] = None,
) -> None:
    """Run a server in the foreground."""
    from lambent.cli.up import run

    given = {"host": host, "port": port, "data_dir": data_dir, "config": config, "database": database}
    raise typer.Exit(run({name: value for name, value in given.items() if value is not None}))


app.command("dev")(dev.dev)
app.command("deploy")(deploy.deploy)
app.command("invoke")(invoke.invoke)
app.command("logs")(logs.logs)
app.command("functions")(functions.functions)
app.command("delete")(functions.delete)
app.command("events")(events.events)
app.command("backup")(backup.backup)
app.command("restore")(restore.restore)
app.command("ps")(environments.ps)
app.command("story")(environments.story)
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lambent {__version__}")
        raise typer.Exit


@app.callback()
def root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    """AWS Lambda that you own: run, deploy, invoke and watch functions on your own machine."""


def run_app(arguments: Sequence[str]) -> int:
    """Run one command line; gives the exit code."""
    try:
        app(args=list(arguments), prog_name="lambent")
    except Trouble as trouble:
        remark(f"lambent: {trouble}")
        return 1
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return 0
