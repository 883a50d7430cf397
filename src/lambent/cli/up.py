"""``lambent up``: run a server in the foreground until SIGTERM or Ctrl-C.

Kept free of every heavy import; see ``main.py``. ``commands.py`` declares the same options for ``--help`` and for error messages.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lambent.sandbox.driver import IsolationReport
from lambent.settings import BadSetting, Settings, load


def _port(text: str) -> int:
    if 1 <= (port := int(text)) <= 65_535:
        return port
    raise ValueError(text)


_OPTIONS: dict[str, Callable[[str], object]] = {"--host": str, "--port": _port, "--data-dir": Path, "--config": Path, "--database": str}


def parse(arguments: Sequence[str]) -> dict[str, object] | None:
    """The options by name (``host``, ``data_dir``, ...), or ``None`` where typer should answer: help, or a mistake."""
    given: dict[str, object] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name not in _OPTIONS or (not equals and not rest):
            return None
        try:
            given[name.removeprefix("--").replace("-", "_")] = _OPTIONS[name](value if equals else rest.pop(0))
        except ValueError:
            return None
    return given


def run(options: dict[str, object]) -> int:
    """Serve with ``options`` laid over the configuration file; blocks. Gives the exit code."""
    gc.disable()  # a start makes much and drops little; the node takes the collector up again (node.py)
    from lambent.node import serve

    try:
        config = options.pop("config", None)
        settings = load(config if isinstance(config, Path) else None, **options)
    except BadSetting as error:
        print(f"lambent: {error}", file=sys.stderr)
        return 1
    return serve(settings, announce=announce)


def announce(settings: Settings, report: IsolationReport) -> None:
    """Say where the server is and how functions are isolated; called once, when it is ready."""
    colour = sys.stdout.isatty()
    for line in banner(settings, report):
        loud = line.startswith("WARNING")
        print(f"\x1b[1;31m{line}\x1b[0m" if loud and colour else line, file=sys.stderr if loud else sys.stdout, flush=True)


def banner(settings: Settings, report: IsolationReport) -> list[str]:
    """What ``announce`` prints, a line each. Warnings start with ``WARNING``."""
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    facts = ", ".join(f"{name} {value}" for name, value in report.facts.items())
    lines = [
        "",
        f"  Lambent is up at {url}",
        "",
        f"  data       {settings.data_dir.absolute()}",
        f"  isolation  {report.driver}: {report.reason}",
    ]
    if facts:
        lines.append(f"             {facts}")
    if settings.database:
        lines.insert(4, f"  database   {without_password(settings.database)}")
    lines += [
        "",
        f'  boto3      boto3.client("lambda", endpoint_url="{url}", region_name="{settings.region}",',
        '                          aws_access_key_id="test", aws_secret_access_key="test")',
        f"  aws CLI    aws --endpoint-url {url} lambda list-functions",
        "  lambent    lambent deploy FOLDER && lambent invoke NAME",
        "",
        "  Ctrl-C stops it.",
        "",
    ]
    if report.driver == "process":
        lines.append("WARNING: functions run WITHOUT ISOLATION, as plain processes of this user. They can read and change its files.")
        lines.append("WARNING: run only code that you trust. `lambent doctor` says what is missing and how to get it.")
    lines += [f"WARNING: {line}" for line in report.missing]
    if settings.auth == "any" and settings.host not in {"127.0.0.1", "::1", "localhost"}:
        lines.append(f'WARNING: {settings.host} can be reached from outside and any credentials are accepted; see auth = "signature".')
    return lines


def without_password(dsn: str) -> str:
    """A PostgreSQL address as it may be shown."""
    return re.sub(r"(://[^/@:]*):[^@]*@|(password\s*=\s*)\S+", lambda match: f"{match[1]}:***@" if match[1] else f"{match[2]}***", dsn)
