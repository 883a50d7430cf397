"""Servers are killed again and again under mixed work; then all is left to come to rest, and everything acknowledged is accounted for.

In ``make test`` a sample; ``make chaos`` runs the full counts. LAMBENT_CHAOS_ROUNDS sets the number of rounds, LAMBENT_CHAOS_SEED repeats
a run's draws, LAMBENT_CHAOS_POINTS ("all") visits every named point rather than a few.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from chaos_accounts import Account, Auditor, History, collect_answers, table
from chaos_estate import Estate
from chaos_load import Interrupted, Ledger, Load
from chaos_processes import below, launchers, wait_until_gone
from chaos_town import Town

from lambent.invoke.async_house import ASYNC_POINTS
from lambent.sources.poller import MAPPING_POINTS
from lambent.testing.local_server import ServerFailed
from lambent.testing.pointed_store import STORE_POINTS
from lambent.testing.postgres_server import PostgresServer

ROUNDS = int(os.environ.get("LAMBENT_CHAOS_ROUNDS", "3"))
SEED = int(os.environ.get("LAMBENT_CHAOS_SEED", str(random.SystemRandom().randrange(2**32))))
POINTS = (*ASYNC_POINTS, *MAPPING_POINTS, *STORE_POINTS)
STORES = ["sqlite", "postgres"]
PRELUDES = {"event:released": "run:begun", "delivery:released": "delivery:sending"}
"""What must have been cut short before, so that a server comes by at its start."""


class Fire:
    """A town, its clients, and whoever kills."""

    def __init__(self, folder: Path, database: PostgresServer | None) -> None:
        self.dice = random.Random(SEED)
        self.town = Town(folder, ["--database", database.dsn] if database is not None else [])
        self.server = self.town.server
        self.database = database
        self.ledger = Ledger()
        self.load = Load(self.town, self.ledger, SEED)
        self.estate = Estate(self.town, self.load, SEED)
        self.history = History()
        self.rounds = 0

    def build(self) -> None:
        self.server.start()
        if self.server.health()["isolation"]["driver"] != "namespaces":
            self.server.stop()
            pytest.skip("only the namespaces driver mounts the folder in which functions take notes")
        self.town.build()
        for _ in range(8):
            self.estate.act()
        assert self.server.stop() == 0

    def start(self) -> None:
        self.history.starts.append(time.time())
        self.server.start()

    # -- rounds ------------------------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """Start, work, kill at a random moment: sometimes while it starts, sometimes the launcher or the database before."""
        self.rounds += 1
        if self.dice.random() < 0.1:
            self.die_at_the_start()
        self.start()
        self.estate.check()
        self.load.pace = self.dice.choice([0.002, 0.01, 0.03])
        self.load.start(self.estate.act)
        pause = threading.Event()
        pause.wait(self.dice.uniform(0.1, 0.8))  # the moments of death are the test's random input, no synchronisation
        drawn = self.dice.random()
        if drawn < 0.15:
            self.kill_launcher()
        elif drawn < 0.5 and self.database is not None:
            self.restart_database(pause)
        pause.wait(self.dice.uniform(0.05, 0.8))
        self.kill(with_database=self.database is not None and self.dice.random() < 0.1)

    def die_at_the_start(self) -> None:
        self.history.starts.append(time.time())
        timer = threading.Timer(self.dice.uniform(0.05, 0.5), self._kill_process)
        timer.start()
        with contextlib.suppress(ServerFailed):
            self.server.start()
            timer.join()
            self.server.died()
        timer.join()
        self.history.kills.append(time.time())

    def _kill_process(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.server.pid, signal.SIGKILL)

    def kill_launcher(self) -> None:
        for pid in launchers(self.server.pid):
            self.history.launchers.append(time.time())
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def restart_database(self, pause: threading.Event) -> None:
        assert self.database is not None
        self.load.outage = True
        begin = time.time()
        self.database.stop(signal.SIGQUIT)
        pause.wait(self.dice.uniform(0.0, 0.5))
        self.database.start()
        self.history.outages.append((begin, time.time()))

    def kill(self, with_database: bool = False) -> None:
        tree = below(self.server.pid)
        self.load.stop()
        if with_database:
            assert self.database is not None
            self.history.outages.append((time.time(), time.time()))
            self.database.stop(signal.SIGQUIT)
        self.server.kill()
        self.after_death(tree)
        if with_database:
            assert self.database is not None
            self.database.start()

    def after_death(self, tree: set[int]) -> None:
        self.history.kills.append(time.time())
        self.load.join()
        self.load.outage = False
        wait_until_gone(tree)

    # -- named points ------------------------------------------------------------------------------------------------------------

    def die_at(self, point: str) -> None:
        """A server that ends itself at a random one of the next visits of ``point``."""
        if point in PRELUDES:
            self.die_at(PRELUDES[point])
        self.rounds += 1
        self.server.fatal = (point, self.dice.randint(1, 4) if not point.endswith(":released") else 1)
        try:
            self.start()
        except ServerFailed:
            self.server.fatal = None
            self.history.kills.append(time.time())
            return
        finally:
            self.server.fatal = None
        tree = below(self.server.pid)
        self.load.pace = 0.01
        self.load.outage = True  # a request of the last moment is answered by nobody
        held = 5.0 if point.startswith("prolong:") else 0.2
        troubled = point.startswith(("giveback:", "prolong:", "poller:", "mapping:"))
        more = [self.estate.act, partial(self.trouble_mapping, held) if troubled else self.calm_mapping]
        if point.startswith("redrive:"):
            more.append(self.redrive)
        self.load.start(*more)
        try:
            code = self.server.died(60)
        except ServerFailed as error:
            raise AssertionError(f"nobody came to {point}") from error
        finally:
            self.load.stop()
            self.after_death(tree)
        assert code == -signal.SIGKILL, f"{point}: {self.server.output}"

    def trouble_mapping(self, seconds: float) -> bool:
        """Throttle a function for so long that its messages are held and prolonged, and switch the mapping off with them in its hands."""
        self.calm_mapping()
        call, api, mapping = self.load.call, self.town.api, self.town.mappings["standard"]
        call(api.put_function_concurrency, FunctionName="standard", ReservedConcurrentExecutions=0)
        self.load.rest(seconds)
        call(api.update_event_source_mapping, UUID=mapping, Enabled=False)
        return False

    def calm_mapping(self) -> bool:
        """Undo what ``trouble_mapping`` has begun."""
        call, api, mapping = self.load.call, self.town.api, self.town.mappings["standard"]
        call(api.delete_function_concurrency, FunctionName="standard")
        while (state := call(api.get_event_source_mapping, UUID=mapping)["State"]) != "Enabled":
            if state == "Disabled":
                call(api.update_event_source_mapping, UUID=mapping, Enabled=True)
            self.load.rest(0.02)
        return True

    def redrive(self) -> bool:
        self.history.redrives.append(time.time())
        try:
            self.town.redrive("doomed")
        except OSError as error:
            raise Interrupted from error
        return False

    # -- the end -----------------------------------------------------------------------------------------------------------------

    def settle(self) -> list[Account]:
        """Start once more, let everything come to its end, and account for it."""
        self.start()
        self.estate.check()
        self.calm_mapping()
        self.wait_for_rest(120 + ROUNDS)
        (self.town.notes / "pardon").touch()
        self.history.redrives.append(time.time())
        pardoned = self.town.redrive("doomed")
        self.wait_for_rest(60)
        assert self.town.server.page("events/doomed")["counts"]["dead"] == 0
        answers = collect_answers(self.town)
        accounts = Auditor(self.town, self.ledger, self.history, answers).all()
        assert pardoned >= len(self.ledger.acknowledged["doomed"]) - len(accounts[3].lost)
        estate = Account("changes of the control plane", self.estate.acknowledged, self.estate.acknowledged)
        estate.unanswered = self.estate.found_made
        assert self.server.stop() == 0
        assert "Traceback" not in self.server.output, self.server.output
        return [*accounts, estate]

    def wait_for_rest(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while (left := self.town.waiting()) and time.monotonic() < deadline:
            threading.Event().wait(0.1)
        assert not left, f"still not done after {patience} s: {left}"

    def put_out(self) -> None:
        self.load.stop()
        with contextlib.suppress(Exception):
            self.server.kill()


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("store", STORES)
def test_nothing_acknowledged_is_lost(tmp_path, store, request, chaos_report):
    """Kills at random moments, and at named points."""
    fire = Fire(tmp_path / "town", request.getfixturevalue("database") if store == "postgres" else None)
    points = list(POINTS) if os.environ.get("LAMBENT_CHAOS_POINTS") == "all" else fire.dice.sample(POINTS, 2)
    try:
        fire.build()
        for _ in range(ROUNDS):
            fire.round()
        for point in points:
            fire.die_at(point)
        accounts = fire.settle()
    finally:
        fire.put_out()
    history = fire.history
    deaths = f"{len(history.kills)} kills of the node, {len(history.launchers)} of the launcher"
    if store == "postgres":
        deaths += f", {len(history.outages)} immediate stops of the database"
    where = f"{len(points)} named points" if len(points) > 2 else ", ".join(points)
    chaos_report(f"{store}: {ROUNDS} rounds, and {where}: {deaths}; seed {SEED}", accounts, table(accounts))
