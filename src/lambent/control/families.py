"""The families of resources beside functions, built and loaded together: policies, configurations, mappings and the like."""

from __future__ import annotations

from collections.abc import Callable

from lambent.arn import FunctionArn
from lambent.clock import Clock
from lambent.control.destinations import Destinations
from lambent.control.event_invoke_config import EventInvokeConfigs
from lambent.control.function_table import FunctionTable
from lambent.control.function_urls import FunctionUrls
from lambent.control.policies import Policies
from lambent.settings import Limits
from lambent.store.contract import Store


class Families:
    """``load`` after the functions and before anything else. ``queue_exists`` is told the ARN of a queue."""

    def __init__(
        self, table: FunctionTable, store: Store, clock: Clock, limits: Limits, port: int, queue_exists: Callable[[str], bool]
    ) -> None:
        def function_exists(arn: FunctionArn) -> bool:
            return table.get(arn) is not None

        self.policies = Policies(table, limits)
        self.destinations = Destinations(function_exists, queue_exists)
        self.event_invoke = EventInvokeConfigs(table, self.destinations, clock, limits)
        self.urls = FunctionUrls(table, port, clock, limits)

    async def load(self) -> None:
        self.urls.load()
