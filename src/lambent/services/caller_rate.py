"""How often a caller may ask the control plane (contract 01 §1): AWS's limits as settings, all of them off unless set.

GetFunction and GetPolicy have rates of their own, every other operation but the invocations shares one. An operation without a limit is not
wrapped, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from lambent.clock import Clock
from lambent.errors import throttled
from lambent.invoke.scaling_rate import TokenBucket
from lambent.settings import Limits
from lambent.wire.call import Call

Method = Callable[[Call, dict[str, Any]], Awaitable[dict[str, Any]]]
Buckets = dict[tuple[str, str], TokenBucket]

SCOPES = 10_000  # accounts and Regions remembered


def limit_rates(methods: Mapping[tuple[str, str], Method], limits: Limits, clock: Clock) -> dict[tuple[str, str], Method]:
    """``methods`` with the limits before those that have one."""
    rates = {"GetFunction": limits.get_function_rate, "GetPolicy": limits.get_policy_rate}
    buckets: dict[str, Buckets] = {}
    wrapped = dict(methods)
    for (service, operation), method in methods.items():
        rate = rates.get(operation, limits.control_rate)
        if service == "lambda" and not operation.startswith("Invoke") and rate > 0:
            group = operation if operation in rates else ""
            wrapped[service, operation] = _limited(method, rate, buckets.setdefault(group, {}), clock)
    return wrapped


def _limited(method: Method, rate: int, buckets: Buckets, clock: Clock) -> Method:
    async def limited(call: Call, params: dict[str, Any]) -> dict[str, Any]:
        scope = (call.account, call.region)
        bucket = buckets.get(scope)
        if bucket is None:
            if len(buckets) >= SCOPES:
                buckets.clear()
            bucket = buckets[scope] = TokenBucket(rate, rate, clock.monotonic())
        if not bucket.take(clock.monotonic()):
            raise throttled("CallerRateLimitExceeded", "Rate exceeded")
        return await method(call, params)

    return limited
