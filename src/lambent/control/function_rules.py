"""What the service refuses although the model lets it pass (contract 01 §5, §8).

The wire has already held every request to the model's types, lengths, patterns and ranges. Three kinds of refusal are left:

* AWS's own service rules, in AWS's words: limits narrower than the model's, reserved variables, what a zip function must have.
* What this machine cannot do: a runtime without its interpreter (said by the catalogue), an architecture that is not its own.
* What Lambent does not do yet. An option whose effect is missing must not be accepted in silence, so it answers ``NotImplementedFault``
  with the member named. What AWS's deploy tools send as a matter of course is kept and shown, and the parity page tells what
  comes of it (``WITHOUT_EFFECT``).
"""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Mapping
from typing import Any, Protocol

from lambent.control import function_kinds, image_code
from lambent.control.code_source import S3_MEMBERS, BucketObject, bucket_object, by_reference
from lambent.control.destinations import check_dead_letters
from lambent.control.file_systems import FileSystems
from lambent.control.logging_config import check_logging, default_logging
from lambent.errors import NotImplementedFault, invalid_parameter
from lambent.runtimes.environment_variables import reserved
from lambent.settings import Limits
from lambent.wire.validate import at_least, at_most, validation_fault, violation

Params = Mapping[str, Any]

TAG_KEY, TAG_VALUE = 128, 256  # characters (contract 06 §9)
Source = bytes | str | BucketObject  # a zip, the name of an image, an object that is a zip


class Catalogue(Protocol):
    """The runtimes of this machine."""

    def check(self, runtime: str) -> None:
        """Raises ``ClientFault`` for a runtime that is unknown or deprecated; does not look at the machine."""
        ...

    def plan(self, runtime: str) -> object:
        """Raises ``ClientFault`` as ``check`` does, and where what runs it is missing here. May block for its first answer."""
        ...


def machine_architecture() -> str:
    """This machine's architecture in AWS's words."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "aarch64": "arm64"}.get(name, name)


REFUSED_IF_SET = ("RuntimeConfig",)
REFUSED_BY_VALUE = {
    "Runtime": "custom",
}
"""Answered with ``NotImplementedException``: their effect does not exist yet, and to accept them would be a lie."""

WITHOUT_EFFECT = {
    "AcceleratorConfig": "no accelerator is given to an environment",
    "CapacityProviderConfig": "environments are those of this machine, with one invocation at a time; what is invoked is as on AWS",
    "Code.SourceKMSKeyArn": "nothing is encrypted with it",
    "DurableConfig": "an invocation answers NotImplementedException",
    "SnapStart": "no snapshot is taken; OptimizationStatus is Off on every version",
    "VpcConfig": "functions reach what `sandbox.egress` says; VpcId is empty",
    "KMSKeyArn": "nothing is encrypted with it",
    "TracingConfig": "no segments are sent; the trace header is passed on",
    "FileSystemConfigs.S3FilesConfig": "a folder of this machine stands for the file system",
}
"""Stored, validated and shown as on AWS, but nothing comes of them yet. Told on the parity page."""


PARTLY = {
    "Code.S3ObjectStorageMode": (
        "REFERENCE reads buckets of the function's own account without asking their policies",
        "a bucket of another account must let lambda.amazonaws.com in; Regions do not matter",
    ),
}
"""Effective, but not in every respect as on AWS. Told on the parity page."""


class Rules:
    """``machine`` is the architecture of functions here, in AWS's words; by default this machine's."""

    def __init__(self, limits: Limits, catalogue: Catalogue, machine: str = "", file_systems: FileSystems | None = None) -> None:
        self._limits = limits
        self._catalogue = catalogue
        self.machine = machine or machine_architecture()
        self.file_systems = file_systems or FileSystems({})

    def create(self, params: Params) -> Source:
        """Check CreateFunction; gives the zip, the object that is one, or the name of the image."""
        _refuse_unbuilt("CreateFunction", params)
        package_type = params.get("PackageType") or "Zip"
        image_code.check_members(package_type, params)
        content: Source
        if package_type == "Image":
            if params.get("CodeSigningConfigArn"):
                raise invalid_parameter("Code signing is not supported for functions created with container images.")
            content = image_code.source(params["Code"], "creating")
        else:
            if not params.get("Runtime") or not params.get("Handler"):
                raise invalid_parameter("Runtime and Handler are mandatory parameters for functions created with deployment packages.")
            content = self.zip_file(params["Code"])
        self._configuration(params, default_logging(""), {})
        function_kinds.check_create(params)
        self.architectures(params)
        self.tags(params.get("Tags") or {})
        return content

    def update_configuration(self, params: Params, before: Params) -> None:
        """Check UpdateFunctionConfiguration; of the function, which has the document ``before``, only what never changes."""
        _refuse_unbuilt("UpdateFunctionConfiguration", params)
        image_code.check_members(before["PackageType"], params)
        self._configuration(params, None, before)

    def update_of(self, before: Params, params: Params) -> None:
        """Check the rest of it, against the document as it stands."""
        self.logging(before["LoggingConfig"], params.get("LoggingConfig"))
        function_kinds.check_update(before, params)

    def update_code(self, params: Params, package_type: str = "Zip") -> Source:
        """Check UpdateFunctionCode; gives the zip, the object that is one, or the name of the image."""
        _refuse_unbuilt("UpdateFunctionCode", params)
        content: Source
        if package_type == "Image":
            content = image_code.source(params, "updating")
        elif params.get("ImageUri"):
            raise invalid_parameter("Please don't provide ImageUri when updating a function with packageType Zip.")
        else:
            content = self.zip_file(params)
        self.architectures(params)
        return content

    async def runtime(self, params: Params) -> None:
        """Check that this machine can run the runtime asked for, if any. Looking for an interpreter blocks, so a thread does it."""
        if params.get("Runtime"):
            await asyncio.to_thread(self._catalogue.plan, params["Runtime"])

    def zip_file(self, code: Params) -> bytes | BucketObject:
        """The zip of a request that must have exactly one source of code, or the object that it is."""
        content: bytes | None = code.get("ZipFile")
        if content is not None:
            if by_reference(code) or any(code.get(name) for name in (*S3_MEMBERS, "ImageUri")):
                raise invalid_parameter("Please do not provide other FunctionCode parameters when providing a ZipFile.")
            return content
        wanted = bucket_object(code)
        if wanted is not None:
            return wanted
        raise invalid_parameter("Please provide a source for function code.")

    def architectures(self, params: Params) -> None:
        for name in params.get("Architectures") or ():
            if name != self.machine:
                raise invalid_parameter(f"The architecture {name} is not available here: this machine runs {self.machine} functions only.")

    def tags(self, tags: Mapping[str, str]) -> None:
        """Check the whole set of tags that a function would then have."""
        if len(tags) > self._limits.tags:
            raise invalid_parameter("Number of tags exceeds resource tag limit.")
        for key, value in tags.items():
            if key.lower().startswith("aws:"):
                raise invalid_parameter("aws: prefixed tag key names are not allowed for external use.")
            if not 1 <= len(key) <= TAG_KEY or len(value) > TAG_VALUE:
                raise invalid_parameter(f"Tag keys must have 1 to {TAG_KEY} characters and tag values at most {TAG_VALUE}.")

    def logging(self, before: Mapping[str, str], given: Mapping[str, str] | None) -> None:
        """Log levels go with the JSON format only; ``before`` is what the function has, since LoggingConfig is merged per field."""
        check_logging(before, given)

    def unzipped(self, code: int, layers: int) -> None:
        """Check that code and layers, in bytes unzipped, fit into one function together."""
        if layers and code + layers > self._limits.code_unzipped:
            raise invalid_parameter(
                f"Function code combined with layers exceeds the maximum allowed size of {self._limits.code_unzipped} bytes. "
                f"The actual size is {code + layers} bytes."
            )

    def _configuration(self, params: Params, logging: Mapping[str, str] | None, before: Params) -> None:
        limits = self._limits
        kind = {**before, **params}
        memory, storage = function_kinds.most_memory(kind, limits.memory_max_mb), function_kinds.most_storage(kind, limits.ephemeral_max_mb)
        size = (params.get("EphemeralStorage") or {}).get("Size")
        complaints = [
            *_out_of_range("timeout", params.get("Timeout"), 1, limits.timeout_max_s),
            *_out_of_range("memorySize", params.get("MemorySize"), limits.memory_min_mb, memory),
            *_out_of_range("ephemeralStorage.size", size, limits.ephemeral_min_mb, storage),
        ]
        if complaints:
            raise validation_fault(complaints)
        if logging is not None and not function_kinds.on_provider(kind):
            self.logging(logging, params.get("LoggingConfig"))
        if (params.get("DeadLetterConfig") or {}).get("TargetArn"):
            check_dead_letters(params["DeadLetterConfig"]["TargetArn"])
        self.file_systems.check(params.get("FileSystemConfigs") or ())
        self._environment((params.get("Environment") or {}).get("Variables") or {})
        if params.get("Runtime") == "custom":
            raise NotImplementedFault("lambda", "functions with Runtime custom")
        if params.get("Runtime"):
            self._catalogue.check(params["Runtime"])

    def _environment(self, variables: Mapping[str, str]) -> None:
        prefix = "Lambda was unable to configure your environment variables because the environment variables you have provided"
        used = reserved(variables)
        if used:
            raise invalid_parameter(
                f"{prefix} contains reserved keys that are currently not supported for modification. "
                f"Reserved keys used in this request: {', '.join(used)}",
            )
        measured = json.dumps(dict(variables), separators=(",", ":"), ensure_ascii=False)
        if len(measured.encode("utf-8", "surrogatepass")) > self._limits.environment:
            kilobytes = self._limits.environment // 1024
            raise invalid_parameter(f"{prefix} exceeded the {kilobytes}KB limit. String measured: {measured}")


def _out_of_range(member: str, value: int | None, low: int, high: int) -> list[str]:
    """A value outside the range of this account, in the words of a validation error (contract 01 §1.1)."""
    if value is None or low <= value <= high:
        return []
    return [violation(member, value, at_least(low) if value < low else at_most(high))]


def _refuse_unbuilt(operation: str, params: Params) -> None:
    """Refuse the options whose effect does not exist yet."""
    named: list[str] = [name for name in REFUSED_IF_SET if params.get(name)]
    if named:
        raise NotImplementedFault("lambda", f"{operation} with {', '.join(named)}")
