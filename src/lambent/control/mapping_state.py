"""The life of an event source mapping, as one literal table (contract 04 §1.1).

A mapping is created, changed, switched on and off and deleted, and each of these takes a moment, in which it can be neither changed nor
deleted. ``Settled`` ends the moment; it carries the ``fence`` that began it, and one that is late changes nothing.

    phase               State
    CREATING            Creating
    ENABLED             Enabled       polled
    DISABLED            Disabled      kept, with its place in the source
    ENABLING            Enabling
    DISABLING           Disabling
    UPDATING            Updating      will be Enabled; polled as before until then
    UPDATING_DISABLED   Updating      will be Disabled
    DELETING            Deleting      shown until it is gone
    ABSENT                            no such mapping
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from lambent.errors import ClientFault, IllegalTransition


class Phase(Enum):
    ABSENT = "absent"
    CREATING = "creating"
    ENABLED = "enabled"
    DISABLED = "disabled"
    ENABLING = "enabling"
    DISABLING = "disabling"
    UPDATING = "updating"
    UPDATING_DISABLED = "updating_disabled"
    DELETING = "deleting"


class Event(Enum):
    CREATE = "create"
    CREATE_DISABLED = "create_disabled"
    CHANGE = "change"  # says nothing of Enabled
    ENABLE = "enable"
    DISABLE = "disable"
    DELETE = "delete"
    SETTLED = "settled"


P, E = Phase, Event

TRANSITIONS: Mapping[tuple[Phase, Event], Phase] = {
    (P.ABSENT, E.CREATE): P.CREATING,
    (P.ABSENT, E.CREATE_DISABLED): P.DISABLED,
    (P.CREATING, E.SETTLED): P.ENABLED,
    (P.ENABLED, E.CHANGE): P.UPDATING,
    (P.ENABLED, E.ENABLE): P.UPDATING,
    (P.ENABLED, E.DISABLE): P.DISABLING,
    (P.ENABLED, E.DELETE): P.DELETING,
    (P.DISABLED, E.CHANGE): P.UPDATING_DISABLED,
    (P.DISABLED, E.DISABLE): P.UPDATING_DISABLED,
    (P.DISABLED, E.ENABLE): P.ENABLING,
    (P.DISABLED, E.DELETE): P.DELETING,
    (P.ENABLING, E.SETTLED): P.ENABLED,
    (P.DISABLING, E.SETTLED): P.DISABLED,
    (P.UPDATING, E.SETTLED): P.ENABLED,
    (P.UPDATING_DISABLED, E.SETTLED): P.DISABLED,
    (P.DELETING, E.SETTLED): P.ABSENT,
}

SHOWN: Mapping[Phase, str] = {
    P.CREATING: "Creating",
    P.ENABLED: "Enabled",
    P.DISABLED: "Disabled",
    P.ENABLING: "Enabling",
    P.DISABLING: "Disabling",
    P.UPDATING: "Updating",
    P.UPDATING_DISABLED: "Updating",
    P.DELETING: "Deleting",
}

IN_TRANSITION = frozenset({P.CREATING, P.ENABLING, P.DISABLING, P.UPDATING, P.UPDATING_DISABLED, P.DELETING})
POLLED = frozenset({P.ENABLED, P.UPDATING})
"""The phases in which records are taken from the source."""


@dataclass(frozen=True, slots=True)
class MappingState:
    """Where a mapping stands; ``fence`` names what began the transition, ``""`` outside of one."""

    phase: Phase = Phase.ABSENT
    fence: str = ""

    def handle(self, event: Event, fence: str) -> MappingState:
        """The next state. ``fence`` is the id of the request, or for ``SETTLED`` of the one that began what now ends.

        Raises ``ClientFault`` for a caller who comes in the middle of a transition, ``IllegalTransition`` for what cannot happen.
        """
        if event is Event.SETTLED and fence != self.fence:
            return self
        if self.phase in IN_TRANSITION and event is not Event.SETTLED:
            verb = "delete" if event is Event.DELETE else "update"
            raise ClientFault("ResourceInUseException", 400, f"Cannot {verb} the event source mapping because it is in use.")
        phase = TRANSITIONS.get((self.phase, event))
        if phase is None:
            raise IllegalTransition("event source mapping", self.phase.value, event.value)
        return MappingState(phase, fence if phase in IN_TRANSITION else "")

    @property
    def shown(self) -> str:
        return SHOWN[self.phase]

    @property
    def polled(self) -> bool:
        return self.phase in POLLED
