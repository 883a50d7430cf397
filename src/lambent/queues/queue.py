"""One queue as a value: its identity, its attributes, its tags. Stored as one document; replaced, never edited."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lambent.queues.attributes import DEFAULTS, FIFO_DEFAULTS


@dataclass(frozen=True, slots=True)
class Redrive:
    """Where messages go that were received too often."""

    target: str  # ARN
    after: int


@dataclass(frozen=True, slots=True)
class Queue:
    """``uid`` is ours: a queue that is deleted and made again has another, so nothing of the old one shows in the new one."""

    account: str
    region: str
    name: str
    uid: str
    created: int  # epoch seconds
    modified: int
    given: Mapping[str, str] = field(default_factory=dict)  # attributes that were set
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return queue_key(self.account, self.region, self.name)

    @property
    def arn(self) -> str:
        return f"arn:aws:sqs:{self.region}:{self.account}:{self.name}"

    @property
    def store_name(self) -> str:
        """The store's queue that holds the messages."""
        return f"sqs/{self.uid}"

    @property
    def is_fifo(self) -> bool:
        return self.name.endswith(".fifo")

    def attribute(self, name: str) -> str:
        """A settable attribute as it stands; "" where it is neither set nor has a default."""
        default = FIFO_DEFAULTS.get(name, "") if self.is_fifo else ""
        return self.given.get(name) or DEFAULTS.get(name, default)

    def number(self, name: str) -> int:
        return int(self.attribute(name))

    @property
    def redrive(self) -> Redrive | None:
        text = self.given.get("RedrivePolicy")
        if not text:
            return None
        policy = json.loads(text)
        return Redrive(policy["deadLetterTargetArn"], int(policy["maxReceiveCount"]))

    def lets_redrive(self, source_arn: str) -> bool:
        """May ``source_arn`` have this queue as its dead-letter queue?"""
        text = self.given.get("RedriveAllowPolicy")
        if not text:
            return True
        policy = json.loads(text)
        permission = policy["redrivePermission"]
        return permission == "allowAll" or (permission == "byQueue" and source_arn in policy.get("sourceQueueArns", []))

    def document(self) -> dict[str, Any]:
        return {
            "account": self.account,
            "region": self.region,
            "name": self.name,
            "uid": self.uid,
            "created": self.created,
            "modified": self.modified,
            "given": dict(self.given),
            "tags": dict(self.tags),
        }


def queue_key(account: str, region: str, name: str) -> str:
    return f"{account}/{region}/{name}"
