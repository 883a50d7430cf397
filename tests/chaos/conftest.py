"""The summary of the chaos rounds, shown at the end of the session and, with LAMBENT_CHAOS_REPORT, written to that file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from chaos_accounts import Account

_reports: list[str] = []


@pytest.fixture
def chaos_report() -> Callable[[str, Sequence[Account], str], None]:
    """Keep the accounts for the summary, then hold them to what was promised."""

    def report(title: str, accounts: Sequence[Account], table: str) -> None:
        latest = max(account.latest for account in accounts)
        _reports.append(f"{title}\n\n{table}\n\nwhat was done twice was done at most {latest:.2f} s before the kill\n")
        for account in accounts:
            account.check()

    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _reports:
        terminalreporter.section("chaos")
        for report in _reports:
            terminalreporter.write_line(report)
        if path := os.environ.get("LAMBENT_CHAOS_REPORT"):
            Path(path).write_text("\n".join(_reports))
