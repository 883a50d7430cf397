"""The families of resources beside functions, built and loaded together: policies, configurations, mappings and the like."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lambent.arn import FunctionArn
from lambent.clock import Clock
from lambent.control.capacity_providers import CapacityProviders
from lambent.control.code_signing import CodeSigning
from lambent.control.destinations import Destinations
from lambent.control.event_invoke_config import EventInvokeConfigs
from lambent.control.event_source_mappings import EventSourceMappings, Tasks
from lambent.control.function_table import FunctionTable
from lambent.control.function_urls import FunctionUrls
from lambent.control.mapping_rules import MappingRules
from lambent.control.policies import Policies
from lambent.control.recursion import Recursion
from lambent.control.runtime_management import RuntimeManagement
from lambent.control.runtime_versions import RuntimeOf
from lambent.control.scaling_config import ScalingConfigs
from lambent.control.tags import Tagged
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
        check_tags: Callable[[Mapping[str, str]], None],
        runtime_of: RuntimeOf = lambda name: None,
    ) -> None:
        def function_exists(arn: FunctionArn) -> bool:
            return table.get(arn) is not None

        self.policies = Policies(table, limits)
        self.destinations = Destinations(function_exists, lambda arn: visibility(arn) is not None)
        self.event_invoke = EventInvokeConfigs(table, self.destinations, clock, limits)
        self.urls = FunctionUrls(table, port, clock, limits)
        mapping_rules = MappingRules(self.destinations, visibility, limits.filters)
        self.mappings = EventSourceMappings(store, table, mapping_rules, tasks, clock, check_tags)
        self.code_signing = CodeSigning(store, table, clock, limits, check_tags)
        self.runtime_management = RuntimeManagement(table, runtime_of)
        self.recursion = Recursion(table)
        self.scaling = ScalingConfigs(table)
        self.capacity_providers = CapacityProviders(store, table, tasks, clock, limits, check_tags)

    @property
    def tagged(self) -> Mapping[str, Tagged]:
        """Who keeps tags, by what stands in ARNs."""
        return {
            "event-source-mapping": self.mappings,
            "code-signing-config": self.code_signing,
            "capacity-provider": self.capacity_providers,
        }

    async def load(self) -> None:
        self.urls.load()
        await self.mappings.load()
        await self.code_signing.load()
        await self.capacity_providers.load()
