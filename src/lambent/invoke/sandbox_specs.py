"""What a version's sandbox is built from: a function version and the plan of its runtime, put together as a ``SandboxSpec``. Pure, but for
a random token, and looking whether the code or a layer holds the ``bootstrap`` of a provided runtime.

Four ways to run, one rule each: Python is forked from a zygote (no program); the other managed runtimes are a program that may have been
started ahead; with ``AWS_LAMBDA_EXEC_WRAPPER`` the wrapper is the program and gets the runtime's command line as its arguments (contract 03
§3); a container image is what its ENTRYPOINT and CMD say, in its own root and with its own variables under the function's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lambent.function_version import FunctionVersion, ImageRoot
from lambent.images import entry_point, layer_tree
from lambent.observe import log_lines
from lambent.runtimes import dotnet, provided
from lambent.runtimes.environment_variables import Places, RoleCredentials, environment_variables
from lambent.sandbox.driver import LOG_FD, Mount, Program, SandboxSpec

if TYPE_CHECKING:
    from lambent.runtimes.catalogue import Catalogue
    from lambent.runtimes.plan import RuntimePlan

WRAPPER = "AWS_LAMBDA_EXEC_WRAPPER"
FRAMES = "_LAMBDA_TELEMETRY_LOG_FD"  # where log records go that stay whole (observe/log_frames.py)
IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Defaults of the managed runtimes, which mean nothing in somebody else's file system.
_NOT_IN_IMAGES = ("LD_LIBRARY_PATH", "PYTHONPATH", "PWD", "SHLVL")


class SandboxSpecs:
    """Makes specs. ``extensions_in`` lists the extensions in a folder of merged layers, as paths inside."""

    def __init__(self, catalogue: Catalogue, places: Places, extensions_in: Callable[[str], Sequence[str]]) -> None:
        self._catalogue = catalogue
        self._places = places
        self._extensions_in = extensions_in

    def make(self, version: FunctionVersion, environment_id: str, log_stream: str, credentials: RoleCredentials) -> SandboxSpec:
        """Raises ``ClientFault`` where this machine does not have the runtime."""
        image = version.image
        plan = None if image is not None else self._catalogue.plan(version.runtime)
        defaults = image.environment if image is not None else plan.environment if plan is not None else {}
        environment = environment_variables(
            version,
            log_stream,
            credentials=credentials,
            places=self._places,
            initialization_type=version.initialization,
            log_format=version.log_format,
            log_level=version.application_log_level,
            defaults=defaults,
            metadata_token=secrets.token_urlsafe(24),
        )
        if image is not None:
            _undo_defaults(environment, version, image)
        environment[FRAMES] = str(LOG_FD)
        extensions = self._extensions(version)
        return SandboxSpec(
            sandbox_id=environment_id,
            runtime=version.runtime,
            handler=version.handler,
            code_dir=version.code_dir,
            memory_mb=version.memory_mb,
            ephemeral_mb=version.ephemeral_mb,
            environment=environment,
            opt_dir=version.opt_dir,
            program=_program(version, plan, environment),
            mounts=tuple(Mount(each.source, each.mount_path) for each in version.mounts),
            extensions=extensions,
            image_layers=image.layers if image is not None else (),
            hold=bool(extensions),  # until they have registered, as on AWS
            code_key=version.environment_key,
            keep_tmp=True,  # an environment that is reset is still the same
        )

    def _extensions(self, version: FunctionVersion) -> tuple[str, ...]:
        if version.image is not None:
            return layer_tree.extensions(version.image.layers)
        return tuple(self._extensions_in(version.opt_dir)) if version.opt_dir else ()


def _program(version: FunctionVersion, plan: RuntimePlan | None, environment: Mapping[str, str]) -> Program | None:
    if plan is None:
        assert version.image is not None
        return _image_program(version.image, environment.get("PATH", ""))
    wrapper = environment.get(WRAPPER, "")
    if version.runtime in provided.RUNTIMES:
        entry = provided.bootstrap(version.code_dir, version.opt_dir)
        return Program(entry.argv, transport=plan.transport, problem=entry.problem)
    if version.runtime in dotnet.RUNTIMES:
        entry = dotnet.entry(plan, version.handler, version.code_dir)
        argv = (wrapper, *entry.argv) if wrapper and not entry.problem else entry.argv
        return Program(argv, transport=plan.transport, problem=entry.problem)
    if wrapper and plan.wraps:
        return Program((wrapper, *plan.wrapped_command(version.memory_mb)), transport=plan.transport)
    return Program(plan.command(version.memory_mb), warm=plan.warm, transport=plan.transport) if plan.argv else None


def _image_program(image: ImageRoot, path: str) -> Program:
    problem = entry_point.problem(image.layers, image.argv, image.workdir, path)
    if problem is None:
        return Program(image.argv, image.workdir, transport="http")
    # What cannot be started must not start by chance: a folder can never be executed.
    entry = image.argv[: len(image.argv) - len(image.command)]
    line = log_lines.image_launch_error(problem.text, entry, image.command, image.workdir)
    return Program(("/",), "/", transport="http", problem=problem.text, problem_type=problem.error_type, problem_line=line)


def _undo_defaults(environment: dict[str, str], version: FunctionVersion, image: ImageRoot) -> None:
    for name in _NOT_IN_IMAGES:
        if name not in image.environment and name not in version.environment:
            environment.pop(name, None)
    if "PATH" not in image.environment and "PATH" not in version.environment:
        environment["PATH"] = IMAGE_PATH
    environment.pop("AWS_EXECUTION_ENV", None)  # AWS's base images set it themselves
    if "AWS_EXECUTION_ENV" in image.environment:
        environment["AWS_EXECUTION_ENV"] = image.environment["AWS_EXECUTION_ENV"]
