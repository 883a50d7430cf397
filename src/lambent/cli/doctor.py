"""``lambent doctor``: what this machine gives, what it lacks, and how to get that. Needs no server.

Isolation is not inferred but tried: the driver that a server would choose is opened, asked what it gives, and closed again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from lambent import __version__
from lambent.cli.api import JsonOption
from lambent.cli.screen import Trouble, is_terminal, say, show_json, styled, table
from lambent.errors import LambentError
from lambent.runtimes import nodejs
from lambent.runtimes.catalogue import Catalogue
from lambent.runtimes.identifiers import family
from lambent.runtimes.packages import has_sdk
from lambent.runtimes.plan import RuntimePlan
from lambent.sandbox.choose import make_driver
from lambent.sandbox.driver import IsolationReport
from lambent.settings import BadSetting, Settings, load


def doctor(
    config: Annotated[Path | None, typer.Option(help="The server's TOML file, if it has one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which runtimes and which isolation this machine gives, and what is missing."""
    try:
        settings = load(config)
    except BadSetting as error:
        raise Trouble(str(error)) from error
    catalogue = Catalogue(settings.sandbox.interpreters, package_folders=settings.sandbox.packages)
    findings = {
        "lambent": __version__,
        "machine": _machine(),
        "isolation": _isolation(settings, catalogue),
        **_runtimes(settings, catalogue),
    }
    if as_json:
        show_json(findings)
    else:
        _tell(findings)
    if not findings["runtimes"]:
        raise typer.Exit(1)


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memoryMb": memory // 2**20,
        "user": "root" if os.geteuid() == 0 else f"uid {os.geteuid()}",
    }


def _isolation(settings: Settings, catalogue: Catalogue) -> dict[str, Any]:
    logging.disable(logging.WARNING)  # what a server would log is told here in better words
    try:
        with tempfile.TemporaryDirectory(prefix="lambent-doctor-") as folder:
            report = asyncio.run(_open_and_close(settings, catalogue, Path(folder)))
    except LambentError as error:
        return {"driver": None, "reason": str(error), "facts": {}, "missing": []}
    finally:
        logging.disable(logging.NOTSET)
    return {"driver": report.driver, "reason": report.reason, "facts": dict(report.facts), "missing": list(report.missing)}


async def _open_and_close(settings: Settings, catalogue: Catalogue, folder: Path) -> IsolationReport:
    driver = make_driver(settings.sandbox, folder, catalogue, settings.port)
    await driver.open()
    try:
        return driver.report
    finally:
        await driver.close()


def _runtimes(settings: Settings, catalogue: Catalogue) -> dict[str, Any]:
    installed = catalogue.installed()
    return {
        "interpreters": [
            {
                "runtime": found.runtime,
                "version": found.version_text,
                "executable": found.executable,
                "boto3": has_sdk(found, settings.sandbox.packages),
            }
            for found in catalogue.interpreters()
        ],
        "runtimes": [
            {
                "runtime": plan.runtime,
                "version": plan.version,
                "program": _program(plan, catalogue),
                "sdk": _sdk(plan, catalogue, settings),
            }
            for plan in installed
        ],
        "missingRuntimes": catalogue.missing(),
        "rejected": catalogue.rejected(),
        "searched": catalogue.searched(),
    }


def _program(plan: RuntimePlan, catalogue: Catalogue) -> str:
    """What runs it, as a path of this machine; "" for provided runtimes, whose program comes with the function."""
    interpreter = catalogue.known(plan.runtime)
    if interpreter is not None:
        return interpreter.executable
    program = plan.argv[0] if plan.argv else ""
    return plan.prefix + program.removeprefix("/var/lang") if program.startswith("/var/lang/") else program


def _sdk(plan: RuntimePlan, catalogue: Catalogue, settings: Settings) -> str:
    """What of the AWS SDK functions find; "" where AWS's runtime brings none either."""
    interpreter = catalogue.known(plan.runtime)
    if interpreter is not None:
        return "with boto3" if has_sdk(interpreter, settings.sandbox.packages) else "without boto3"
    if family(plan.runtime) == "nodejs":
        return "with @aws-sdk" if nodejs.has_sdk(plan) else "without @aws-sdk"
    return ""


def _tell(findings: dict[str, Any]) -> None:
    machine, isolation = findings["machine"], findings["isolation"]
    say(
        f"Lambent {findings['lambent']} on Linux {machine['kernel']} ({machine['architecture']}), {machine['cpus']} CPUs, "
        f"{machine['memoryMb']} MB, as {machine['user']}"
    )
    _title("Isolation")
    if isolation["driver"] is None:
        styled(f"a server would not start: {isolation['reason']}", "bold red")
    else:
        isolated = isolation["driver"] != "process"
        styled(f"{isolation['driver']}: {isolation['reason']}", "green" if isolated else "bold red")
        if not isolated:
            styled("Functions run WITHOUT ISOLATION here, as plain processes of this user.", "bold red")
    table(("", ""), list(isolation["facts"].items()))
    for line in isolation["missing"]:
        styled(f"missing: {line}", "yellow")
    _title("Runtimes")
    rows = [(found["runtime"], found["version"], found["sdk"], found["program"]) for found in findings["runtimes"]]
    table(("RUNTIME", "VERSION", "SDK", "PROGRAM"), rows, "none was found: no function can run")
    for path, why in findings["rejected"].items():
        say(f"passed over: {path}: {why}")
    for why in _grouped(findings["missingRuntimes"]):
        styled(f"missing: {why}", "yellow")
    say(f"searched: {', '.join(findings['searched'])}")
    if any(found["sdk"] == "without boto3" for found in findings["runtimes"]):
        styled("missing: boto3 for some interpreters: run `python -m lambent.runtimes.prepare` once, with a network", "yellow")
    without = [found["runtime"] for found in findings["runtimes"] if found["sdk"] == "without @aws-sdk"]
    if without:
        styled(
            f"missing: @aws-sdk for {', '.join(without)}: run `python -m lambent.runtimes.prepare @aws-sdk/client-s3 ...` once, with a "
            "network, or name a node_modules folder under [sandbox] packages",
            "yellow",
        )


def _grouped(missing: dict[str, str]) -> list[str]:
    """One line a family: what to do about several versions differs by a number only."""
    families: dict[str, list[str]] = {}
    for runtime in missing:
        families.setdefault(family(runtime) or runtime, []).append(runtime)
    return [f"{', '.join(names)}: {missing[names[-1]]}" for names in families.values()]


def _title(text: str) -> None:
    if is_terminal():
        say()
        styled(text, "bold")
