"""The families of resources beside functions, built and loaded together: policies, configurations, mappings and the like."""

from __future__ import annotations

from collections.abc import Callable

from lambent.arn import FunctionArn
from lambent.clock import Clock
from lambent.control.destinations import Destinations
from lambent.control.event_invoke_config import EventInvokeConfigs
from lambent.control.event_source_mappings import EventSourceMappings, Tasks
from lambent.control.function_table import FunctionTable
from lambent.control.function_urls import FunctionUrls
from lambent.control.mapping_rules import MappingRules
from lambent.control.policies import Policies
from lambent.settings import Limits
from lambent.store.contract import Store


class Families:
    """``load`` after the functions and before anything else. ``visibility`` gives a queue's timeout in seconds, ``None``: no such queue."""

    def __init__(
        self,
        table: FunctionTable,
        store: Store,
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
        port: int,
        visibility: Callable[[str], int | None],
    ) -> None:
        def function_exists(arn: FunctionArn) -> bool:
            return table.get(arn) is not None

        self.policies = Policies(table, limits)
        self.destinations = Destinations(function_exists, lambda arn: visibility(arn) is not None)
        self.event_invoke = EventInvokeConfigs(table, self.destinations, clock, limits)
        self.urls = FunctionUrls(table, port, clock, limits)
        mapping_rules = MappingRules(self.destinations, visibility, limits.filters)
        self.mappings = EventSourceMappings(store, table, mapping_rules, tasks, clock, limits.tags)

    async def load(self) -> None:
        self.urls.load()
        await self.mappings.load()
