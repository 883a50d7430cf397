"""Requests made up from botocore's models: mostly meaningful, often not, never twice the same. Every answer is held to the model.

A request is built member by member from a small world of names (so that operations meet what others made), from the constraints of the
model, and now and then from nonsense. What must hold of every answer: no 5xx; an error that the operation models (or that AWS gives
outside the models); a success that validates against the output shape.
"""

from __future__ import annotations

import collections
import contextlib
import io
import random
import zipfile
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError, ResponseStreamingError, WaiterError
from botocore.validate import ParamValidator

from lambent.wire.patterns import accepts

ROLE = "arn:aws:iam::000000000000:role/fuzz"
BASE = "arn:aws:lambda:us-east-1:000000000000"
UNMODELLED = {
    "AccessDenied",
    "AccessDeniedException",
    "InvalidParameterValueException",
    "InvalidRequestContentException",
    "MissingParameter",
    "RequestEntityTooLargeException",
    "ResourceNotFoundException",
    "SerializationException",
    "TooManyRequestsException",
    "UnknownOperationException",
    "ValidationException",
}
"""Codes that AWS gives without modelling them on every operation (contract 01 §1, §7)."""

SKIPPED = {"InvokeWithResponseStream", "Invoke", "InvokeAsync"}
"""Running functions is not what is tested here, and would take minutes."""


def _zip(text: str) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("app.py", text)
    return memory.getvalue()


ZIPS = [_zip("def handler(event, context): return 1\n"), _zip("def handler(event, context): return 2\n"), b"no zip", b""]
NAMES = ["f0", "f1", "f2", "f3"]
QUALIFIERS = ["$LATEST", "1", "2", "3", "live", "next", "$LATEST.PUBLISHED", "9"]
POOLS: dict[str, list[Any]] = {
    "FunctionName": [*NAMES, *(f"{BASE}:function:{n}" for n in NAMES), "f0:1", "f1:live", f"{BASE}:function:f0:live", "none", "a" * 65],
    "Qualifier": QUALIFIERS,
    "FunctionVersion": ["$LATEST", "1", "2", "3", "ALL"],
    "Name": ["live", "next", "1", "x y"],
    "Runtime": ["python3.11", "python3.12", "nodejs20.x", "go1.x", "cobol"],
    "Role": [ROLE, ROLE, ROLE, "role"],
    "Handler": ["app.handler"],
    "PackageType": ["Zip", "Zip", "Zip", "Image"],
    "ZipFile": ZIPS,
    "LayerName": ["l0", "l1", f"{BASE}:layer:l0"],
    "Layers": [[], [f"{BASE}:layer:l0:1"], [f"{BASE}:layer:l0:1", f"{BASE}:layer:l1:1"], [f"{BASE}:layer:l0:99"]],
    "VersionNumber": [1, 2, 99],
    "Arn": [f"{BASE}:layer:l0:1", f"{BASE}:layer:l9:1", "arn"],
    "Resource": [f"{BASE}:function:f0", f"{BASE}:function:f0:1", f"{BASE}:event-source-mapping:00000000-0000-0000-0000-000000000000"],
    "ResourceArn": [f"{BASE}:function:f0", f"{BASE}:function:f1:live"],
    "TagKeys": [["a"], ["a", "b"]],
    "StatementId": ["s0", "s1", "s 2"],
    "Action": ["lambda:InvokeFunction", "lambda:GetLayerVersion", "lambda:*", "s3:Get"],
    "Principal": ["s3.amazonaws.com", "123456789012", "*", "arn:aws:iam::123456789012:root", "nobody"],
    "EventSourceArn": [
        "arn:aws:sqs:us-east-1:000000000000:q0",
        "arn:aws:sqs:us-east-1:000000000000:none",
        "arn:aws:kinesis:us-east-1:000000000000:stream/s",
    ],
    "Destination": ["arn:aws:sqs:us-east-1:000000000000:q0", f"{BASE}:function:f1", "arn:bad", ""],
    "TargetArn": ["arn:aws:sqs:us-east-1:000000000000:q0", "", "arn:bad"],
    "RevisionId": ["00000000-0000-0000-0000-000000000000"],
    "Policy": ['{"Version":"2012-10-17","Statement":[]}', "{", ""],
    "Pattern": ['{"body":{"a":[1]}}', "{", '{"a":1}'],
    "MemorySize": [128, 256, 10_240, 127, 20_000],
    "Timeout": [1, 3, 900, 0, 901],
    "Marker": ["bad"],
    "UUID": ["00000000-0000-0000-0000-000000000000"],
    "CodeSigningConfigArn": [f"{BASE}:code-signing-config:csc-0123456789abcdef0"],
    "CapacityProviderName": ["cp0", "cp1", f"{BASE}:capacity-provider:cp0"],
    "CapacityProviderArn": [f"{BASE}:capacity-provider:cp0", f"{BASE}:capacity-provider:none"],
}
WORDS = [
    "",
    "a",
    "live",
    "0",
    "ü",
    "x" * 300,
    "a b",
    "arn:aws:lambda:us-east-1:000000000000:function:f0",
    "$LATEST",
    "true",
    "../..",
    "\u2028",
]
RARE = {
    "Marker": 0.05,
    "RevisionId": 0.05,
    "CodeSigningConfigArn": 0.05,
    "KMSKeyArn": 0.05,
    "CapacityProviderConfig": 0.1,
    "DurableConfig": 0.1,
    "VpcConfig": 0.1,
    "ImageConfig": 0.1,
}


class Fuzzer:
    """Makes requests of ``service`` at ``endpoint`` and keeps what was wrong in ``complaints``."""

    def __init__(self, endpoint: str, operations: set[str], seed: int) -> None:
        self.random = random.Random(seed)
        session = botocore.session.get_session()
        session.set_credentials("test", "test")
        config = Config(parameter_validation=False, retries={"total_max_attempts": 1}, max_pool_connections=4, read_timeout=60)
        self.client = session.create_client("lambda", "us-east-1", endpoint_url=endpoint, config=config)
        self.model = self.client.meta.service_model
        self.methods = {name: method for method, name in self.client.meta.method_to_api_mapping.items()}
        self.operations = sorted(operations - SKIPPED)
        self.complaints: list[str] = []
        self.outcomes: collections.Counter[str] = collections.Counter()

    def run(self, count: int) -> None:
        for number in range(count):
            if number % 250 == 0:
                self._furnish()
            self.step(self.random.choice(self.operations))

    def _furnish(self) -> None:
        """Make the world that most requests speak of, as far as it is not there."""
        code = {"ZipFile": ZIPS[0]}
        function = {"Runtime": "python3.11", "Role": ROLE, "Handler": "app.handler", "Code": code, "Publish": True}
        wishes: list[tuple[Any, dict[str, Any]]] = [(self.client.create_function, {"FunctionName": name, **function}) for name in NAMES]
        wishes += [(self.client.publish_layer_version, {"LayerName": name, "Content": code}) for name in ("l0", "l1")]
        network = {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
        provider = {"CapacityProviderName": "cp0", "VpcConfig": network, "PermissionsConfig": {"CapacityProviderOperatorRoleArn": ROLE}}
        wishes.append((self.client.create_capacity_provider, provider))
        for call, params in wishes:
            self._wish(call, params)
        for name in NAMES:
            with contextlib.suppress(WaiterError):  # a fuzzed one may be of a kind that never is Active
                self.client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 50})
                self.client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 50})
            self._wish(self.client.update_function_code, {"FunctionName": name, "ZipFile": ZIPS[1], "Publish": True})
            for alias in ("live", "next"):
                self._wish(self.client.create_alias, {"FunctionName": name, "Name": alias, "FunctionVersion": "1"})

    def _wish(self, call: Any, params: dict[str, Any]) -> None:
        with contextlib.suppress(ClientError):
            call(**params)

    def step(self, name: str) -> None:
        operation = self.model.operation_model(name)
        params = self._structure(operation.input_shape) if operation.input_shape is not None else {}
        try:
            answer = getattr(self.client, self.methods[name])(**params)
        except ClientError as error:
            self._judge_error(operation, params, error)
            return
        except (ParamValidationError, ResponseStreamingError, TypeError, ValueError, AttributeError, KeyError):
            self.outcomes["not sent"] += 1  # botocore itself cannot put it on the wire
            return
        if any(
            params.get(label) == ""
            for label, shape in operation.input_shape.members.items()
            if shape.serialization.get("location") == "uri"
        ):
            self.outcomes["other operation"] += 1  # without a name in its path it is, on the wire, the one that lists
            return
        self.outcomes["success"] += 1
        answer.pop("ResponseMetadata")
        if operation.output_shape is not None:
            report = ParamValidator().validate(answer, operation.output_shape)
            if report.has_errors():
                self.complaints.append(f"{name}({params!r:.600}) answered {answer!r:.600}: {report.generate_report()}")

    def _judge_error(self, operation: Any, params: dict[str, Any], error: ClientError) -> None:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        self.outcomes[code] += 1
        allowed = {shape.name for shape in operation.error_shapes} | UNMODELLED
        if status == 501 and code == "NotImplementedException":
            return  # honest, and told on the parity page
        if status >= 500 or code not in allowed:
            self.complaints.append(
                f"{operation.name}({params!r:.900}): {status} {code}: {error.response['Error'].get('Message', '')[:300]}"
            )

    # -- making things up --------------------------------------------------------------------------------------------------------

    def _structure(self, shape: Any, depth: int = 0) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, member in shape.members.items():
            chance = 0.97 if name in shape.required_members else RARE.get(name, 0.35 / (depth + 1))
            if self.random.random() < chance:
                made[name] = self._member(name, member, depth)
        if shape.name == "CreateFunctionRequest" and self.random.random() < 0.6:
            made = {
                **made,
                "PackageType": "Zip",
                "Runtime": "python3.11",
                "Handler": "app.handler",
                "Role": ROLE,
                "Code": {"ZipFile": ZIPS[0]},
            }
            made.pop("ImageConfig", None)
        return made

    def _member(self, name: str, shape: Any, depth: int) -> Any:
        pool = POOLS.get(name)
        if pool is not None and self.random.random() < 0.93:
            return self.random.choice(pool)
        return self._value(shape, depth)

    def _value(self, shape: Any, depth: int) -> Any:
        pick = self.random
        kind = shape.type_name
        if kind == "structure":
            return self._structure(shape, depth + 1)
        if kind == "list":
            return [self._value(shape.member, depth + 1) for _ in range(pick.choice([0, 1, 1, 2, 12]))]
        if kind == "map":
            return {str(self._value(shape.key, depth + 1)): self._value(shape.value, depth + 1) for _ in range(pick.choice([0, 1, 2]))}
        if kind in ("integer", "long"):
            low, high = shape.metadata.get("min", 0), shape.metadata.get("max", 1_000)
            odd = [low, high, low - 1, high + 1, 1]
            return pick.choice(odd) if pick.random() < 0.3 else pick.randint(int(low), min(int(high), int(low) + 100))
        if kind in ("float", "double"):
            return pick.choice([0.0, 0.5, 1.0, -1.0, 2.0])
        if kind == "boolean":
            return pick.random() < 0.5
        if kind == "blob":
            return pick.choice(ZIPS)
        if kind == "timestamp":
            return pick.choice([0, 1_790_000_000])
        if shape.enum and pick.random() < 0.9:
            return pick.choice(list(shape.enum))
        fitting = [word for word in WORDS if self._fits(shape, word)]
        return pick.choice(fitting if fitting and pick.random() < 0.85 else WORDS)

    @staticmethod
    def _fits(shape: Any, word: str) -> bool:
        about = shape.metadata
        pattern = about.get("pattern")
        within = about.get("min", 0) <= len(word) <= about.get("max", 10**9)
        return within and (not pattern or accepts(pattern, word))
