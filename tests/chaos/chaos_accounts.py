"""What became of every piece of acknowledged work, once all is still: handled, in a dead-letter queue or destination, or lost.

Work that was done twice is allowed where something died while it was under way, and only there: every repetition is put down to its
cause, and one without a cause is a failure like a loss.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chaos_load import Ledger
from chaos_town import ANSWERS, EVENT_FUNCTIONS, LETTERS, TRIES, VISIBILITY_S, Note, Town

_SAME = 0.25  # seconds that clocks and threads may be apart
_CAUGHT_S = 3.0  # before a launcher dies: as long as a function may run

NODE, DATABASE, LAUNCHER, VISIBILITY = "node killed", "database stopped", "launcher killed", "visibility ended"


@dataclass
class History:
    """When what died. A node's time is from the start of its process to the start of the next; its sandboxes die before that."""

    starts: list[float] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    launchers: list[float] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    redrives: list[float] = field(default_factory=list)  # of the function that is doomed

    def cause(self, first: float, second: float, received: float | None = None) -> str | None:
        """Why what was done at ``first`` was done again at ``second``; a message may be had again when its visibility timeout ends."""
        if any(first <= start <= second for start in self.starts):
            return NODE
        if any(begin <= second and first <= end + _SAME for begin, end in self.outages):
            return DATABASE
        if any(first - _SAME <= at <= second and at - first < _CAUGHT_S for at in self.launchers):
            return LAUNCHER
        if received is not None and second - received >= VISIBILITY_S:
            return VISIBILITY
        return None

    def late(self, first: float) -> float:
        """How long before the death of its node something was done."""
        return max(0.0, min((kill for kill in self.kills if kill >= first), default=first) - first)


@dataclass
class Account:
    """One line of the summary."""

    name: str
    acknowledged: int = 0
    handled: int = 0
    dead: int = 0
    lost: list[str] = field(default_factory=list)
    unanswered: int = 0  # nobody was told, and yet it came about
    again: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    latest: float = 0.0  # the longest time between something done twice and the death that made it so

    def row(self) -> list[str]:
        causes = ", ".join(f"{count} {cause}" for cause, count in sorted(self.again.items())) or "0"
        return [self.name, *map(str, (self.acknowledged, self.handled, self.dead, len(self.lost), self.unanswered)), causes]

    def check(self) -> None:
        assert not self.lost, f"{self.name}: {len(self.lost)} of {self.acknowledged} lost, e.g. {self.lost[:5]}"
        assert not self.unexplained, f"{self.name}: {len(self.unexplained)} unexplained, e.g. {self.unexplained[:5]}"


HEADINGS = ["work", "acknowledged", "handled", "dead letter or destination", "lost", "unanswered, yet done", "done twice, by cause"]
Answers = Mapping[str, Mapping[str, Sequence[float]]]  # queue -> key -> when it was sent there


def collect_answers(town: Town) -> Answers:
    """Empty the queues that results and dead letters went to."""
    found: dict[str, dict[str, list[float]]] = {}
    for queue in (*ANSWERS, *LETTERS.values()):
        keys = found.setdefault(queue, {})
        for message, sent in town.empty(queue):
            body = message["Body"]
            if queue in ANSWERS:
                document = json.loads(body)
                body = document["id"] if queue == "dead" else document["requestPayload"]["id"]
            keys.setdefault(body, []).append(sent)
    return found


class Auditor:
    """Makes the accounts of all kinds of work."""

    def __init__(self, town: Town, ledger: Ledger, history: History, answers: Answers) -> None:
        self._ledger = ledger
        self._history = history
        self._answers = {queue: {key: sorted(times) for key, times in keys.items()} for queue, keys in answers.items()}
        self._notes = {name: town.read_notes(name) for name in (*EVENT_FUNCTIONS, "sink", *LETTERS)}

    def all(self) -> list[Account]:
        return [
            *[self._event_account(name) for name in EVENT_FUNCTIONS],
            *[self._message_account(name) for name in LETTERS],
            self._results(),
        ]

    def _open(self, name: str, kind: str) -> tuple[Account, Mapping[str, Sequence[Note]]]:
        account = Account(name, len(self._ledger.acknowledged[kind]))
        notes = self._notes[kind]
        invented = set(notes) - self._ledger.asked[kind]
        account.unexplained += [f"{key} was never asked for" for key in sorted(invented)]
        account.unanswered = len(set(notes) - set(self._ledger.acknowledged[kind]))
        return account, notes

    def _event_account(self, function: str) -> Account:
        account, notes = self._open(f"events, {function}", function)
        done = {key for key, each in notes.items() if any(note.what == "done" for note in each)}
        won = self._answers["won"] if function == "good" else self._notes["sink"] if function == "moody" else {}
        for key, request_id in self._ledger.acknowledged[function].items():
            lost = key in self._answers["lost"] and (function != "bad" or key in self._answers["dead"])
            if function == "doomed":  # its events lie dead in the node, until they are pardoned at the end
                won = notes
            if (key in won and key in done) or lost:
                account.handled += key in done
                account.dead += lost
            else:
                account.lost.append(key)
            if request_id and any(note.request_id != request_id for note in notes.get(key, ())):
                account.unexplained.append(f"{key} has several request ids")
        for key, each in notes.items():
            redriven = sum(each[0].at <= at for at in self._history.redrives) if function == "doomed" else 0
            self._repetitions(account, key, each, TRIES[function] + redriven)
        return account

    def _repetitions(self, account: Account, key: str, notes: Sequence[Note], most: int) -> None:
        """Runs beyond what the settings allow, and runs after one that succeeded."""
        causes = []
        for before, after in itertools.pairwise(sorted(notes, key=lambda note: note.at)):
            cause = self._history.cause(before.at, after.at)
            if cause is not None:
                causes.append(cause)
            if before.what == "done":
                self._note_cause(account, key, before.at, cause)
        extra = len(notes) - most
        if extra > len(causes):
            account.unexplained.append(f"{key} was tried {len(notes)} times: {notes}")
        elif extra > 0 and not any(note.what == "done" for note in notes):
            account.again.update(causes[:extra])

    def _note_cause(self, account: Account, key: str, first: float, cause: str | None) -> None:
        if cause is None:
            account.unexplained.append(f"{key} was done again after {first}")
            return
        account.again[cause] += 1
        if cause == NODE:
            account.latest = max(account.latest, self._history.late(first))

    def _message_account(self, kind: str) -> Account:
        account, notes = self._open(f"messages, {kind}", kind)
        letters = self._answers[LETTERS[kind]]
        for key in self._ledger.acknowledged[kind]:
            account.handled += key in notes
            account.dead += key in letters
            if key not in notes and key not in letters:
                account.lost.append(key)
        for key, each in notes.items():
            ordered = sorted(each, key=lambda note: note.at)
            for before, after in itertools.pairwise(ordered):
                self._note_cause(account, f"{key} ({before}, {after})", before.at, self._history.cause(before.at, after.at, before.since))
            if len({note.count for note in each}) != len(each):
                account.unexplained.append(f"{key}: two deliveries with one receive count: {ordered}")
        if kind == "fifo":
            self._check_order(account, notes)
        return account

    def _check_order(self, account: Account, notes: Mapping[str, Sequence[Note]]) -> None:
        """Within a group no message is handled for the first time before one that was sent earlier."""
        for group, keys in self._ledger.order.items():
            firsts = [(min(note.at for note in notes[key]), key) for key in keys if key in notes]
            for (before, early), (after, late) in itertools.pairwise(firsts):
                if after < before:
                    account.unexplained.append(f"{group}: {late} was handled before {early}")

    def _results(self) -> Account:
        """Dead letters and records at destinations: as many as there should be, and one each unless something died."""
        account = Account("results and dead letters delivered")
        for queue in (*ANSWERS, *LETTERS.values()):
            for key, times in self._answers[queue].items():
                account.acknowledged += 1
                account.handled += 1
                for before, after in itertools.pairwise(times):
                    self._note_cause(account, f"{queue}: {key}", before, self._history.cause(before - _SAME, after))
        asked = set().union(*self._ledger.asked.values())
        invented = set().union(*map(set, self._answers.values())) - asked
        account.unexplained += [f"{key} was never asked for" for key in sorted(invented)]
        for function, queue in (("good", "won"), ("bad", "lost"), ("moody", "lost")):
            self._check_nothing_after_its_end(account, function, queue)
        return account

    def _check_nothing_after_its_end(self, account: Account, function: str, queue: str) -> None:
        """Whose result has been sent off has ended, and is not run again."""
        for key, times in self._answers[queue].items():
            after = [note for note in self._notes[function].get(key, ()) if note.at > times[0] + _SAME]
            if after:
                account.unexplained.append(f"{key} ran after its result was sent: {times}, {after}")


def table(accounts: Sequence[Account]) -> str:
    rows = [HEADINGS, ["---"] * len(HEADINGS), *[account.row() for account in accounts]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
