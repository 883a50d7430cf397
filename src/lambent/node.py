"""The composition root: builds the parts from the settings, joins them, runs them, and takes them down in order.

The only file that knows every driver. Nothing is decided here but who gets whom.

Start: store, logs, sandbox driver, data plane, control plane (which loads every function and finishes what a killed process left),
API; then the socket listens and the banner says so. Stop, on SIGTERM or SIGINT: the socket closes, all that runs gets
``STOP_SECONDS`` together, environments are ended, the driver removes every process, cgroup and mount, logs and store are closed.
``kill -9`` skips all of that, and loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from lambent import __version__
from lambent.api.app import App
from lambent.api.backup_pages import LOOPBACK, BackupPages, Gate, streams
from lambent.api.doors import Doors
from lambent.api.http_server import HttpServer
from lambent.api.pages import Pages
from lambent.api.succession import Succession, listening
from lambent.arn import FunctionArn, parse_function
from lambent.clock import Clock, SystemClock
from lambent.control.account import Account
from lambent.control.aliases import Aliases
from lambent.control.code import CodeStore
from lambent.control.code_links import CodeLinks
from lambent.control.code_room import CodeRoom
from lambent.control.code_source import CodeSource, OtherShelf, OwnShelf
from lambent.control.concurrency import Concurrency
from lambent.control.families import Families
from lambent.control.file_systems import FileSystems, require_mountable
from lambent.control.function_rules import Rules, machine_architecture
from lambent.control.function_table import FunctionTable
from lambent.control.functions import Functions
from lambent.control.idle import Idleness
from lambent.control.image_code import ImageCode
from lambent.control.layer_merge import extensions_in
from lambent.control.layer_table import LayerTable
from lambent.control.layers import Layers
from lambent.control.provisioned_concurrency import ProvisionedConcurrency
from lambent.control.tags import Tags
from lambent.control.versions import Versions
from lambent.errors import LambentError, invalid_parameter
from lambent.function_version import FunctionVersion
from lambent.iam.credentials import Authenticator, FunctionKeys
from lambent.iam.sessions import Sessions
from lambent.images.sources import Sources
from lambent.images.store import ImageStore
from lambent.invoke.admission import LocalAssigner
from lambent.invoke.async_house import AsyncHouse
from lambent.invoke.async_queue import Functions as AsyncFunctions
from lambent.invoke.debug_ports import DebugPorts
from lambent.invoke.fittings import EnvironmentInfo
from lambent.invoke.frontdoor import FrontDoor
from lambent.invoke.lanes import Point
from lambent.invoke.pools import Pools
from lambent.invoke.provisioned import Provisioned
from lambent.invoke.recursion import Recursion
from lambent.invoke.registry import Registry
from lambent.invoke.sandbox_specs import SandboxSpecs
from lambent.objects.buckets import Buckets
from lambent.objects.listing import Listing
from lambent.objects.multipart import Uploads
from lambent.objects.objects import Objects
from lambent.objects.records import WITH_SEGMENTS, segments_named
from lambent.objects.segments import Segments
from lambent.observe.log_store import LogStore
from lambent.observe.story import Story
from lambent.queues.directory import Directory
from lambent.queues.duplicates import Duplicates
from lambent.queues.mailbox import Mailbox
from lambent.queues.moves import Moves
from lambent.runtimes.catalogue import Catalogue
from lambent.runtimes.environment_variables import Places, RoleCredentials
from lambent.runtimes.versions import runtime_version
from lambent.sandbox.choose import make_driver
from lambent.sandbox.driver import IsolationReport, SandboxDriver, SandboxSpec
from lambent.services.caller_rate import limit_rates
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
from lambent.services.table import methods
from lambent.settings import Settings
from lambent.sources.kinds import source_kinds
from lambent.sources.pollers import Pollers
from lambent.sources.sqs_remote import visibility_of
from lambent.store.backup import Parts, backup
from lambent.store.backup_archive import ArchiveReader
from lambent.store.backup_restore import Staging, finish
from lambent.store.blobs import FileBlobs
from lambent.store.contract import Store, StoreUnavailable
from lambent.store.sqlite import SqliteStore
from lambent.wire.gateway import Gateway
from lambent.wire.router import is_s3

log = logging.getLogger("lambent.node")

STOP_SECONDS = 10.0
PURGE_SECONDS = 3600.0

Announce = Callable[[Settings, IsolationReport], None]


def serve(settings: Settings, announce: Announce, at: Point = lambda name: None) -> int:
    """Run a node until SIGTERM or SIGINT. Gives the exit code. ``at`` is told of named points, for tests that kill it there."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        uvloop.run(Node(settings, at).run(announce)).execute()
    except (LambentError, OSError) as error:
        print(f"lambent: {error}", file=sys.stderr)
        return 1
    return 0


class Node:
    """All parts of one node."""

    def __init__(self, settings: Settings, at: Point = lambda name: None) -> None:
        self._at = at
        self.settings = settings
        self._function_keys = FunctionKeys()
        self.clock = SystemClock()
        self._started_at = self.clock.now()
        self.story = Story()
        self.data_dir = Path(settings.data_dir).absolute()
        self.code_root = self.data_dir / "code"
        self._closers = contextlib.AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, announce: Announce) -> Succession:
        """Start, serve until told to stop, stop."""
        self.succession = Succession(self.clock)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.succession.end)
        with listening(self.settings.host, self.settings.port) as sock:
            await self._run(sock, announce)
        return self.succession

    async def _run(self, sock: socket.socket, announce: Announce) -> None:
        async with self._closers:
            await self._start(sock)
            gc.collect()
            gc.freeze()
            gc.enable()
            gc.set_threshold(50_000, 20, 50)  # what a request leaves behind is freed by reference counts; cycles can wait
            self.create_task(self._purge())
            self.create_task(self._sweep_objects())
            self.create_task(self.idleness.run())
            self.create_task(self.functions.watch.run())
            announce(self.settings, self.driver.report)
            await self.succession.wait()
        await self.succession.leave(self.http, sock)

    async def _start(self, sock: socket.socket) -> None:
        """From the ground up; whatever is opened closes in the opposite order."""
        try:
            await asyncio.to_thread(finish, self.data_dir, self.settings.database)
            self.code_root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"cannot keep anything in {self.data_dir}: {error.strerror}") from error
        await self._open_ground()
        await self._open_sandboxes()
        await self._open_queues()
        await self._open_objects()
        self._build_data_plane()
        await self._build_control_plane()
        await self._open_events()
        self._start_pollers()
        self.debug_ports = DebugPorts(self.pools.newest, self.clock)
        self._closers.push_async_callback(self.debug_ports.close)
        settings = self.settings
        own = settings.auth == "any" and settings.host in LOOPBACK
        debug = self._debug if own else None
        self.sessions = await Sessions.open(self.store)
        authenticator = Authenticator(settings, self.clock, self.sessions, self._function_keys)
        gate = Gate(settings, authenticator)
        backups = BackupPages(gate, self._save, self._restore)
        shown = self._health, self._environments, self._tell, self.code.download
        pages = Pages(*shown, debug, self._events, self._redrive, backups, gate.look)
        host = f"{settings.host}:{settings.port}"
        operations = limit_rates(methods(self._services()), settings.limits, self.clock)
        self.http.handle = App(Gateway(), authenticator, operations, pages, host).handle
        self.http.streams = lambda request: is_s3(request) or streams(request)
        await self.http.listen(sock)
        self.provisioned.begin()
        self._closers.push_async_callback(self._stop_work)

    async def _stop_work(self) -> None:
        """All stop taking work at once, and have ``STOP_SECONDS`` together for what runs; clients hear of what is then cut off."""
        until = self.clock.monotonic() + STOP_SECONDS
        self.events.stop()
        await asyncio.gather(self.succession.close_door(self.http, STOP_SECONDS), self.pollers.close(STOP_SECONDS))
        await self.pools.close(max(0.0, until - self.clock.monotonic()))
        await self.succession.hang_up(self.http)

    async def _open_ground(self) -> None:
        self.store = _open_store(self.settings, self.data_dir, self.clock)
        await self.store.open()
        self._closers.push_async_callback(self.store.close)
        self.blobs = FileBlobs(self.data_dir / "blobs")
        await self.blobs.open()
        self.logs = LogStore(self.data_dir / "logs", self.clock)
        await self.logs.open()
        self._closers.push_async_callback(self.logs.close)

    async def _open_sandboxes(self) -> None:
        settings = self.settings
        self.catalogue = Catalogue(settings.sandbox.interpreters, package_folders=settings.sandbox.packages)
        self.http = HttpServer(self.clock, settings.limits.request_head, settings.limits.request_body)
        driver = make_driver(settings.sandbox, self.code_root, self.catalogue, settings.port)
        self.driver: SandboxDriver = Doors(driver, self.http.adopt)
        await self.driver.open()
        self._closers.push_async_callback(self.driver.close)
        self.specs = SandboxSpecs(self.catalogue, Places(endpoint_url=f"http://127.0.0.1:{settings.port}"), extensions_in)

    def _build_data_plane(self) -> None:
        settings, clock = self.settings, self.clock
        self.registry = Registry()
        version_of = _version_of(self.catalogue)
        self.pools = Pools(self.registry, self.driver, clock, self.logs, self.story, self._spec_for, settings, version_of)
        self.assigner = LocalAssigner(settings.limits.concurrent_executions, clock, settings.limits.requests_per_concurrency)
        self.provisioned = Provisioned(self.registry, self.pools)
        self.recursion = Recursion(self._may_loop)
        self.front_door = FrontDoor(self.registry, self.pools, self.assigner, clock, settings.limits, self.story, self.recursion)

    async def _build_control_plane(self) -> None:
        settings, clock, limits = self.settings, self.clock, self.settings.limits
        links = await CodeLinks.open(self.store, clock)
        linking = self.driver.report.driver == "namespaces"  # elsewhere functions might write to their code
        self.code = CodeStore(self.code_root, self.store, self.blobs, links, limits, clock, self._runs_on, linking)
        self._closers.callback(self.code.close)
        self.table = FunctionTable(self.store)
        images = await self._images(self.code_root)
        self.rules = Rules(limits, self.catalogue, file_systems=FileSystems(settings.sandbox.file_systems))
        layer_table = LayerTable(self.store)
        shelf = OtherShelf(settings.s3) if settings.s3.endpoint else OwnShelf(self.buckets, self.objects, self.segments)
        source = CodeSource(shelf, limits)
        self.room = CodeRoom(self.table, layer_table, limits)
        self.layers = Layers(layer_table, self.code, source, self.room, clock, limits)
        self.functions = Functions(
            self.table,
            self.code,
            self.rules,
            self.registry,
            self.driver.prepare,
            self,
            clock,
            limits,
            self.layers,
            self.room,
            images,
            source,
            self.catalogue.runtime,
        )
        self._closers.push_async_callback(self._finish_tasks)
        await self.functions.load()
        tags, runtimes = self.rules.tags, self.catalogue.runtime
        self.families = Families(self.table, self.store, self, clock, limits, settings.port, self._visibility, tags, runtimes)
        self.functions.admit = self.families.code_signing.admit
        self.functions.admit_provider = self.families.capacity_providers.admit
        self.functions.admit_version = self.families.capacity_providers.admit_version
        await self.families.load()
        self.idleness = Idleness(self.table, clock, limits.idle_seconds, self.functions.report, self._in_use, self.create_task)
        self.registry.inactive = self.idleness.refuse
        self.concurrency = Concurrency(self.table, self.assigner, self.provisioned, limits)
        self.concurrency.load()

    def _services(self) -> dict[str, object]:
        """Who answers which service; several objects may share one (``services/table.py``)."""
        tags = Tags(self.table, self.rules, self.families.tagged)
        account = Account(self.table, self.room, self.settings.limits, self.concurrency.unreserved_in)
        self.aliases = Aliases(self.table, self.registry, self.settings.limits)
        versions = Versions(self.table, self.functions, self.settings.limits)
        provisioned = ProvisionedConcurrency(self.table, self.concurrency, self.provisioned, self.clock, self.settings.limits)
        return {
            "lambda": (
                LambdaVersions(versions, self.aliases),
                LambdaConcurrency(self.concurrency, provisioned),
                LambdaService(self.functions, tags, account, self.front_door, self.layers, self.events),
                LambdaPolicies(self.families.policies),
                LambdaConfigs(self.families.event_invoke, self.families.urls),
                LambdaMappings(self.families.mappings),
                LambdaCodeSigning(self.families.code_signing),
                LambdaCapacity(
                    self.families.capacity_providers, self.families.scaling, self.families.runtime_management, self.families.recursion
                ),
            ),
            "logs": (LogsService(self.logs, self.clock),),
            "s3": (S3Service(self.buckets, self.objects, self.uploads, Listing(self.store, self.objects), self.segments, self.clock),),
            "sqs": (SqsService(self.queues, self.mailbox, self.moves, self.clock),),
            "sts": (StsService(self.sessions, self.clock),),
        }

    async def _open_objects(self) -> None:
        self.segments = Segments(self.data_dir / "objects", self.clock)
        await self.segments.open()
        self._closers.callback(self.segments.close)
        self.buckets = Buckets(self.store, self.clock)
        await self.buckets.load()
        self.objects = Objects(self.store, self.buckets, self.segments, self.clock)
        self.uploads = Uploads(self.store, self.buckets, self.objects, self.segments, self.clock)

    async def _open_queues(self) -> None:
        self.queues = Directory(self.store, self.clock)
        await self.queues.load()
        duplicates = Duplicates(self.store, self.clock)
        await duplicates.load()
        self.mailbox = Mailbox(self.store, self.queues, duplicates, self.clock)
        self.moves = Moves(self.store, self.queues, self.mailbox.bell, self.clock, self.create_task)
        await self.moves.load()

    async def _open_events(self) -> None:
        """Asynchronous invocations. What runs when the node is to end is ended with the pools; what it leaves is in the store."""
        settings = self.settings
        known = AsyncFunctions(self.registry, self.families.event_invoke.of, self.assigner.reserved, self.recursion)
        own = self._function_keys.of(settings.account)
        key = (own.access_key, own.secret_key) if settings.auth == "signature" else (settings.account, "none")
        self.events = AsyncHouse(
            self.store,
            known,
            self.front_door,
            self.queues,
            self.mailbox,
            self.clock,
            self.story,
            settings,
            self.create_task,
            f"http://127.0.0.1:{settings.port}",
            key,
            self._at,
        )
        self._closers.push_async_callback(self.events.drained)
        self._closers.push_async_callback(self.pools.close, STOP_SECONDS)
        self._closers.callback(self.events.stop)
        await self.events.start()

    def _start_pollers(self) -> None:
        kinds = source_kinds(self.settings, self.queues, self.mailbox, self.clock)
        self.mailbox.at = self.families.mappings.at = self._at
        self.pollers = Pollers(kinds, self.front_door, self.clock, self.story, self._at)
        self._closers.push_async_callback(self.pollers.close, STOP_SECONDS)
        self.families.mappings.drained = self.pollers.drained
        if self.settings.endpoints.sqs:
            self.families.mappings.ask_far = partial(visibility_of, settings=self.settings.endpoints)
        self.pollers.start(self.families.mappings)

    async def _images(self, code_root: Path) -> ImageCode:
        settings = self.settings
        sources = Sources(settings.images, settings.registries)
        store = ImageStore(code_root / "images", sources, settings.limits.image_unpacked, machine_architecture(), self.clock, self._runs_on)
        self._closers.callback(store.close)
        await store.open()
        return ImageCode(store, self.clock)

    # ---------------------------------------------------------------------------------------- what the parts ask of each other

    def create_task(self, coro: Any) -> asyncio.Task[None]:
        """Run ``coro`` in the background. One of the three boundaries where any exception is caught: it ends in the log."""
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task failed", exc_info=error)

    async def _purge(self) -> None:
        """Expired log events are hidden at once and removed now and then."""
        while True:
            await self.clock.sleep(PURGE_SECONDS)
            with contextlib.suppress(StoreUnavailable):
                await self.logs.purge(self.clock.now())
                await self.events.expire()

    async def _sweep_objects(self) -> None:
        """Remove what uploads left behind that were never committed."""
        with contextlib.suppress(StoreUnavailable):
            await self.segments.sweep(self.objects.used_segments())

    async def _finish_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spec_for(self, version: FunctionVersion, environment_id: str, log_stream: str) -> SandboxSpec:
        require_mountable(version.mounts)
        account = version.arn.account
        if self.settings.auth == "signature":
            key = self._function_keys.of(account)
            credentials = RoleCredentials(key.access_key, key.secret_key)
        else:
            credentials = RoleCredentials(account)
        return self.specs.make(version, environment_id, log_stream, credentials)

    def _may_loop(self, arn: FunctionArn) -> bool:
        return self.families.recursion.allowed(arn)

    def _visibility(self, arn: str) -> int | None:
        if self.settings.endpoints.sqs:
            return 43_200  # it is not ours to know, so nothing is refused because of it
        queue = self.queues.by_arn(arn)
        return None if queue is None else queue.number("VisibilityTimeout")

    def _runs_on(self, sha256: str) -> bool:
        return self.pools.uses_code(sha256)

    # -------------------------------------------------------------------------------------------------------------- pages

    async def _debug(self, name: str, inside: int, port: int) -> int:
        arn = parse_function(name, self.settings.region, self.settings.account)
        if arn is None:
            raise invalid_parameter(f"{name} is no name of a function.")
        return await self.debug_ports.open(arn.unqualified, inside, port)

    async def _events(self, name: str) -> dict[str, Any]:
        return await self.events.show(self._function_named(name))

    async def _redrive(self, name: str, request_ids: list[str]) -> int:
        return await self.events.redrive(self._function_named(name), request_ids)

    def _function_named(self, name: str) -> FunctionArn:
        arn = parse_function(name, self.settings.region, self.settings.account)
        if arn is None:
            raise invalid_parameter(f"{name} is no name of a function.")
        return arn

    def _health(self) -> dict[str, Any]:
        report = self.driver.report
        return {
            "status": "ok",
            "version": __version__,
            "dataDir": str(self.data_dir),
            "startedAt": self._started_at,
            "isolation": {
                "driver": report.driver,
                "reason": report.reason,
                "facts": dict(report.facts),
                "missing": list(report.missing),
            },
        }

    def _save(self) -> AsyncGenerator[bytes, None]:
        logs = self.data_dir / "logs" / "logs.sqlite"
        parts = Parts(self.store, self.blobs, self.segments, segments_named, WITH_SEGMENTS, logs, self.logs.flush)
        return backup(parts, {"lambent": __version__, "taken": self.clock.now()})

    async def _restore(self, archive: ArchiveReader) -> dict[str, Any]:
        staging = Staging(self.data_dir, self.settings.database, self.clock)
        contents = await staging.take(archive)
        self.succession.begin(self.http, staging)
        return contents

    def _in_use(self) -> list[str]:
        return [info.function for info in self.pools.environments()]

    def _environments(self) -> list[dict[str, Any]]:
        now = self.clock.now()
        return [_show(info, now) for info in self.pools.environments()]

    def _tell(self, subject: str) -> list[dict[str, Any]]:
        told = self.story.tell(subject) or self.story.caused_by(subject)
        if told:
            return [entry.document() for entry in told]
        return self.functions.story(subject, self.settings.region, self.settings.account)


def _version_of(catalogue: Catalogue) -> Callable[[FunctionVersion], tuple[str, str]]:
    """What INIT_START says of a version's runtime. The interpreter is known by then, since the runtime was prepared with it."""

    def version_of(version: FunctionVersion) -> tuple[str, str]:
        if version.image is not None:
            return "", ""
        built = runtime_version(catalogue.plan(version.runtime), version.arn.region, version.arn.partition)
        return built.text, built.arn

    return version_of


def _show(info: EnvironmentInfo, now: float) -> dict[str, Any]:
    return {
        "id": info.id,
        "function": info.function,
        "version": info.version,
        "tenant": info.tenant,
        "state": info.state,
        "sinceSeconds": round(now - info.since, 3),
        "invocations": info.invocations,
        "memoryMb": round(info.memory_bytes / 2**20, 1),
        "logStream": info.log_stream,
    }


def _open_store(settings: Settings, data_dir: Path, clock: Clock) -> Store:
    if not settings.database:
        return SqliteStore(data_dir / "lambent.sqlite", clock)
    try:
        from lambent.store.postgres import PostgresStore
    except ImportError as error:
        raise StoreUnavailable(f"a PostgreSQL database needs psycopg: pip install 'lambent[postgres]' ({error})") from error
    return PostgresStore(settings.database, clock)
