"""Which operations do something: one table, read off the service classes, for the dispatcher and for ``docs/parity.md``.

A public coroutine method of a service class *is* an operation; its name is AWS's in snake case. So nothing can be implemented without
showing, and nothing can show that is not implemented.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from lambent.services.lambda_ import LambdaService
from lambent.services.lambda_capacity import LambdaCapacity
from lambent.services.lambda_code_signing import LambdaCodeSigning
from lambent.services.lambda_concurrency import LambdaConcurrency
from lambent.services.lambda_configs import LambdaConfigs
from lambent.services.lambda_mappings import LambdaMappings
from lambent.services.lambda_policies import LambdaPolicies
from lambent.services.lambda_versions import LambdaVersions
from lambent.services.logs import LogsService
from lambent.services.s3 import S3Service
from lambent.services.sqs import SqsService
from lambent.services.sts import StsService
from lambent.wire.call import Call

Method = Callable[[Call, dict[str, Any]], Awaitable[dict[str, Any]]]

SERVICES: Mapping[str, tuple[type, ...]] = {
    "lambda": (
        LambdaService,
        LambdaVersions,
        LambdaConcurrency,
        LambdaPolicies,
        LambdaConfigs,
        LambdaMappings,
        LambdaCodeSigning,
        LambdaCapacity,
    ),
    "logs": (LogsService,),
    "s3": (S3Service,),
    "sqs": (SqsService,),
    "sts": (StsService,),
}
"""A service may be answered by several classes, one per family of resources."""


def implemented() -> dict[str, set[str]]:
    """Service -> names of the operations that do something, e.g. ``{"sts": {"GetCallerIdentity"}}``."""
    return {service: {operation for kind in kinds for operation, _ in _operations(kind)} for service, kinds in SERVICES.items()}


def methods(services: Mapping[str, object]) -> dict[tuple[str, str], Method]:
    """(service, operation) -> bound method, for the dispatcher. ``services`` holds an instance, or a tuple of them, per service."""
    return {
        (service, operation): getattr(instance, name)
        for service, instances in services.items()
        for instance in (instances if isinstance(instances, tuple) else (instances,))
        for operation, name in _operations(type(instance))
    }


def _operations(kind: type) -> Iterator[tuple[str, str]]:
    for name, _ in inspect.getmembers(kind, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            yield "".join(word.capitalize() for word in name.split("_")), name
