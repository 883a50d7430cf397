"""The ``lambent`` command.

    main.py          entry; sends `up` down a light path, everything else to typer
    up.py            parse the four options of `up`, hand over to the node, print the banner
    api.py           talk to a running server: boto3 clients, and the platform's own pages under /_lambent/
    screen.py        how things are shown: rich tables in a terminal, tab-separated when piped, JSON on request
    bundle.py        a folder becomes a zip file; guesses of handler and runtime
    deploy.py  invoke.py  logs.py  functions.py  environments.py  doctor.py     the commands

`up` becomes the server process, so nothing that only the other commands need (typer, rich, boto3) is imported on its way: that would
cost start-up time, and memory for as long as the server lives.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; the exit code is 0, 1 for an expected failure, 2 for a command that could not be understood."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["up"]:
        from lambent.cli.up import parse, run

        options = parse(arguments[1:])
        if options is not None:
            return run(options)
    from lambent.cli.commands import run_app

    return run_app(arguments)


if __name__ == "__main__":
    sys.exit(main())
