"""Which kinds of event source are polled, and with what: a line each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from lambent.clock import Clock
from lambent.queues.directory import Directory
from lambent.queues.mailbox import Mailbox
from lambent.settings import Settings
from lambent.sources.mapping import queue_plan
from lambent.sources.pollers import SourceKind
from lambent.sources.source import Source
from lambent.sources.sqs_event import PAYLOAD_KEYS
from lambent.sources.sqs_remote import RemoteSqsSource
from lambent.sources.sqs_source import SqsSource


def source_kinds(settings: Settings, directory: Directory, mailbox: Mailbox, clock: Clock) -> Mapping[str, SourceKind]:
    """By the names of ``control/mapping_rules.py``."""

    def queue(arn: str) -> Source:
        if settings.endpoints.sqs:
            return RemoteSqsSource(arn, settings.endpoints, clock.monotonic)
        return SqsSource(arn, directory, mailbox)

    return {"sqs": SourceKind(queue, partial(queue_plan, payload=settings.limits.sync_payload), PAYLOAD_KEYS)}
