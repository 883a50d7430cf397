"""Clients of a server under fire, and their record of what was acknowledged.

Every piece of work has a key. It enters ``asked`` before the request leaves, and ``acknowledged`` after the server has answered with
success. What was asked and not acknowledged may have happened or not; what was never asked must not happen.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from chaos_town import EVENT_FUNCTIONS, Town

KINDS = (*EVENT_FUNCTIONS, "standard", "fifo")
GROUPS = 6
_WEIGHTS = (5, 2, 4, 1)


class Interrupted(Exception):
    """The server, or its database, has gone while a request was under way: either outcome is right."""


@dataclass
class Ledger:
    """By kind of work. Guarded by ``lock``."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in KINDS})
    acknowledged: dict[str, dict[str, str]] = field(default_factory=lambda: {kind: {} for kind in KINDS})  # key -> request id, if any
    order: dict[str, list[str]] = field(default_factory=dict)  # group -> keys in the order in which they were sent

    def ask(self, kind: str, *keys: str) -> None:
        with self.lock:
            self.asked[kind].update(keys)

    def acknowledge(self, kind: str, **keys: str) -> None:
        with self.lock:
            self.acknowledged[kind].update(keys)


class Load:
    """Threads that work until told to stop, or until the server is gone. ``outage`` says whether refusals with 5xx are to be expected."""

    def __init__(self, town: Town, ledger: Ledger, seed: int) -> None:
        self._town = town
        self._ledger = ledger
        self._dice = [random.Random(seed + number) for number in range(8)]
        self._numbers = itertools.count()
        self._unsent: list[tuple[str, str]] = []  # of the FIFO queue: group and key, sent again until there is an answer
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self.failures: list[BaseException] = []
        self.pace = 0.0
        self.outage = False

    def start(self, *more: Callable[[], bool]) -> None:
        """Each of ``more`` is called again and again too, until it says that it is done."""
        self._stop.clear()
        works = [self._events, self._events, self._standard, self._fifo]
        self._threads = [threading.Thread(target=self._again, args=(work, self._dice[n])) for n, work in enumerate(works)]
        self._threads += [threading.Thread(target=self._again, args=(lambda _, each=each: each(), self._dice[5])) for each in more]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Tell all to stop; from here on the server may die."""
        self._stop.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"
        for failure in self.failures:
            raise failure

    def _again(self, work: Callable[[random.Random], Any], dice: random.Random) -> None:
        try:
            while not self._stop.is_set() and not self.failures:
                try:
                    if work(dice):
                        return
                except Interrupted:
                    pass
                self._stop.wait(dice.uniform(0, 2 * self.pace))  # how much load there is belongs to the test's random input
        except BaseException as error:
            self.failures.append(error)

    def call(self, operation: Callable[..., Any], **parameters: Any) -> Any:
        """Raises ``Interrupted`` where the outcome is unknown, anything else where it is a failure of the test."""
        try:
            return operation(**parameters)
        except ClientError as error:
            if self.outage and error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
                raise Interrupted from error
            raise
        except BotoCoreError as error:
            if not (self._stop.is_set() or self.outage):
                self._stop.wait(5)  # whoever kills says so before, but the news of a death may come first
                if not self._stop.is_set():
                    raise
            raise Interrupted from error

    def rest(self, seconds: float) -> None:
        """For clients that wait between their requests."""
        self._stop.wait(seconds)

    # -- kinds of work -----------------------------------------------------------------------------------------------------------

    def _events(self, dice: random.Random) -> None:
        [function] = dice.choices(EVENT_FUNCTIONS, _WEIGHTS)
        key = f"{function}-{next(self._numbers)}"
        body = json.dumps({"id": key, "padding": "x" * dice.choice([0, 0, 100, 20_000])})
        self._ledger.ask(function, key)
        if dice.random() < 0.1:
            self.call(self._town.api.invoke_async, FunctionName=function, InvokeArgs=body)
            self._ledger.acknowledge(function, **{key: ""})
            return
        answer = self.call(self._town.api.invoke, FunctionName=function, InvocationType="Event", Payload=body)
        assert answer["StatusCode"] == 202
        self._ledger.acknowledge(function, **{key: answer["ResponseMetadata"]["RequestId"]})

    def _standard(self, dice: random.Random) -> None:
        keys = [f"{'poison' if dice.random() < 0.01 else 'standard'}-{next(self._numbers)}" for _ in range(dice.randint(1, 6))]
        self._ledger.ask("standard", *keys)
        entries = [{"Id": key, "MessageBody": key, "DelaySeconds": dice.choice([0, 0, 0, 1])} for key in keys]
        answer = self.call(self._town.sqs.send_message_batch, QueueUrl=self._town.urls["standard"], Entries=entries)
        assert "Failed" not in answer
        self._ledger.acknowledge("standard", **{each["Id"]: "" for each in answer["Successful"]})

    def _fifo(self, dice: random.Random) -> None:
        """Whatever was not answered is sent again, in the same order, with the same deduplication id."""
        if not self._unsent:
            for _ in range(dice.randint(1, 3)):
                group, key = f"group-{dice.randrange(GROUPS)}", f"fifo-{next(self._numbers)}"
                self._unsent.append((group, key))
                self._ledger.ask("fifo", key)
                self._ledger.order.setdefault(group, []).append(key)
        entries = [{"Id": key, "MessageBody": key, "MessageGroupId": group, "MessageDeduplicationId": key} for group, key in self._unsent]
        answer = self.call(self._town.sqs.send_message_batch, QueueUrl=self._town.urls["fifo.fifo"], Entries=entries)
        assert "Failed" not in answer
        self._ledger.acknowledge("fifo", **{key: "" for _, key in self._unsent})
        self._unsent = []
        self._stop.wait(0.02)  # groups are handled one message after the other, so they bear less than the rest
