"""A server whose state lies in PostgreSQL: what was acknowledged survives kill -9 of the node and of the database."""

from __future__ import annotations

import signal
import threading

import pytest
from acceptance_helpers import ROLE, RUNTIME, call, settle, stop_cleanly, zipped
from botocore.exceptions import ClientError
from durable_calls import CALLS, Clients, quick, wait

from lambent.testing.local_server import LocalServer

_SOURCE = "def handler(event, context):\n    return event\n"


def test_functions_survive_the_end_of_node_and_database(tmp_path, database):
    with LocalServer(tmp_path / "data", arguments=["--database", database.dsn]) as server:
        api = server.client("lambda")
        code = {"ZipFile": zipped({"app.py": _SOURCE})}
        api.create_function(FunctionName="kept", Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code=code)
        settle(api, "kept")
        assert call(api, "kept", 1)[0] == 1
        before = api.get_function_configuration(FunctionName="kept")
        server.kill()
        assert "database   postgresql://postgres@/" in server.output
        database.stop(signal.SIGQUIT)
        database.start()
        server.start()
        after = api.get_function_configuration(FunctionName="kept")
        assert {**after, "ResponseMetadata": None} == {**before, "ResponseMetadata": None}
        assert call(api, "kept", 2)[0] == 2
        # Without its database the server still runs what it knows, and refuses what it cannot make durable.
        database.stop(signal.SIGQUIT)
        assert call(api, "kept", 3)[0] == 3
        with pytest.raises(ClientError) as caught:
            api.tag_resource(Resource=after["FunctionArn"], Tags={"a": "b"})
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
        database.start()
        api.tag_resource(Resource=after["FunctionArn"], Tags={"a": "c"})
        assert api.list_tags(Resource=after["FunctionArn"])["Tags"] == {"a": "c"}
        assert server.stop() == 0


def test_a_database_that_dies_under_load_loses_and_doubles_nothing(tmp_path, database):
    """Every kind of call at once, while PostgreSQL ends without a shutdown and recovers; its callers wait."""
    with LocalServer(tmp_path / "data", quick(tmp_path), arguments=["--database", database.dsn]) as server:
        clients = Clients(server)
        clients.prepare()
        stop, troubles = threading.Event(), []

        def work(name):
            try:
                while not stop.is_set():
                    if not clients.turn(name):  # what needs to read first does not wait for the database to be back
                        stop.wait(0.05)
            except BaseException as error:  # told in the test's own thread
                troubles.append(error)

        threads = [threading.Thread(target=work, args=(name,)) for name in CALLS]
        for thread in threads:
            thread.start()
        for _ in range(2):
            until = {name: len(done) + 2 for name, done in clients.told.done.items()}
            wait(lambda until=until: bool(troubles) or all(len(clients.told.done[name]) >= least for name, least in until.items()))
            database.stop(signal.SIGQUIT)
            database.start()
        stop.set()
        for thread in threads:
            thread.join()
        assert troubles == []
        clients.check()
        stop_cleanly(server)


def test_a_database_that_is_not_there_is_told(tmp_path):
    from lambent.testing.local_server import ServerFailed

    server = LocalServer(tmp_path / "data", arguments=["--database", f"postgresql://nobody:secret@/x?host={tmp_path}"])
    with pytest.raises(ServerFailed, match="PostgreSQL") as caught:
        server.start()
    assert "secret" not in str(caught.value)
