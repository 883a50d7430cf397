"""Java functions against a real server with real sandboxes, compiled here with a JDK of this machine.

One module of handlers serves all tests; every runtime that has its virtual machine here runs the first of them.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import zipfile

import pytest
from acceptance_helpers import ROLE, call, settle, zipped

from lambent.runtimes import java, java_client
from lambent.runtimes.identifiers import FAMILIES
from lambent.runtimes.java_machines import machines
from lambent.runtimes.plan import RuntimePlan

_CHOSEN, _FOUND = machines((), os.environ)
COMPILERS = [machine for machine in (*_CHOSEN, *_FOUND) if machine.compiler]
RUNTIMES = [name for name in FAMILIES["java"] if isinstance(java.find(name, (), os.environ), RuntimePlan)] if COMPILERS else []
pytestmark = pytest.mark.skipif(not RUNTIMES, reason="this machine has no Java that AWS has, or no JDK")
RUNTIME = RUNTIMES[-1] if RUNTIMES else ""

SOURCES = {
    "shop/Shop.java": """
package shop;
import com.amazonaws.services.lambda.runtime.*;
import java.io.*;
import java.nio.file.*;
import java.util.*;

public class Shop implements RequestHandler<Map<String, Object>, Object> {
    private static final boolean SLOW = System.getenv("SLOW") != null;
    private int count;
    public Shop() {
        if (SLOW) { System.out.println("made slowly"); throw new IllegalStateException("closed today"); }
    }
    public Object handleRequest(Map<String, Object> event, Context context) {
        count++;
        System.out.println("saw " + event);
        context.getLogger().log("logged");
        switch (String.valueOf(event.get("do"))) {
            case "fail": throw new IllegalArgumentException("no such thing", new RuntimeException("because"));
            case "exit": System.exit(3); return null;
            case "sleep": try { Thread.sleep(60_000); } catch (InterruptedException e) { } return null;
            case "memory": List<byte[]> hoard = new ArrayList<>(); while (true) hoard.add(new byte[1 << 20]);
            case "count": return count;
            case "place": return place(context);
            default: return event;
        }
    }
    private Map<String, Object> place(Context context) {
        Map<String, Object> told = new TreeMap<>();
        try {
            Files.write(Paths.get("/tmp/\\u00e9"), "kept".getBytes());
            told.put("tmp", new File("/tmp").list().length);
            Process process = new ProcessBuilder("/bin/sh", "-c", "echo $MINE").start();
            told.put("child", new Scanner(process.getInputStream()).next());
            Class<?> layered = Class.forName("layered.Layered");
            told.put("layer", layered.getField("FROM").get(null));
        } catch (IOException | ReflectiveOperationException e) { throw new RuntimeException(e); }
        told.put("count", count);
        told.put("cwd", System.getProperty("user.dir"));
        told.put("home", System.getProperty("java.home"));
        told.put("version", System.getProperty("java.specification.version"));
        told.put("heap", Runtime.getRuntime().maxMemory() >> 20);
        told.put("execution", System.getenv("AWS_EXECUTION_ENV"));
        told.put("mine", System.getenv("MINE"));
        told.put("trace", System.getProperty("com.amazonaws.xray.traceHeader"));
        told.put("name", context.getFunctionName());
        told.put("memory", context.getMemoryLimitInMB());
        told.put("left", context.getRemainingTimeInMillis());
        told.put("id", context.getAwsRequestId());
        told.put("arn", context.getInvokedFunctionArn());
        told.put("client", context.getClientContext() == null ? null : context.getClientContext().getCustom());
        return told;
    }
    public static class Basket {
        private String owner;
        private List<Integer> prices;
        public String getOwner() { return owner; }
        public void setOwner(String owner) { this.owner = owner; }
        public List<Integer> getPrices() { return prices; }
        public void setPrices(List<Integer> prices) { this.prices = prices; }
        public int getTotal() { return prices.stream().mapToInt(Integer::intValue).sum(); }
    }
    public Basket add(Basket basket) { basket.prices.add(1); return basket; }
    public static class Pipe implements RequestStreamHandler {
        public void handleRequest(InputStream in, OutputStream out, Context context) throws IOException {
            byte[] buffer = new byte[8192];
            for (int count; (count = in.read(buffer)) >= 0;) out.write(buffer, 0, count);
        }
    }
}
""",
}
LAYERED = {"layered/Layered.java": 'package layered; public class Layered { public static final String FROM = new String("the layer"); }'}


def compiled(folder, sources) -> dict[str, bytes]:
    """The class files of ``sources`` by name."""
    client = java_client.jar(COMPILERS)
    assert not isinstance(client, str), client
    for name, text in sources.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    options = ["--release", "8", "-nowarn", "-Xlint:-options", "-cp", client, "-d", folder / "classes"]
    subprocess.run([COMPILERS[-1].compiler, *options, *(folder / name for name in sources)], check=True)
    return {path.relative_to(folder / "classes").as_posix(): path.read_bytes() for path in (folder / "classes").rglob("*.class")}


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("shop"), SOURCES)


@pytest.fixture
def function(api, deploy, classes):
    def create(name, code=None, **options):
        options = {"Runtime": RUNTIME, "Handler": "shop.Shop", "Timeout": 10, "MemorySize": 512, **options}
        deploy(name, "", Code={"ZipFile": zipped(code or classes)}, **options)

    return create


def jar(files) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_events_answers_and_logs(api, logs, function, runtime):
    name = runtime.replace(".", "-")
    function(name, Runtime=runtime)
    for event in ({"a": [1, 2.5, "é"]}, {}):
        answer, whole = call(api, name, event)
        assert answer == event
        assert "FunctionError" not in whole
    assert re.search(r"^saw \{\}\nlogged\nEND ", whole["log"], re.MULTILINE)
    started = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}", filterPattern="INIT_START")["events"]
    assert f"Runtime Version: java:{runtime.removeprefix('java')}.v" in started[0]["message"]


def test_where_it_runs(api, function, tmp_path):
    content = jar({f"java/lib/{name}.jar": jar(files) for name, files in {"layered": compiled(tmp_path, LAYERED)}.items()})
    layer = api.publish_layer_version(LayerName="java-layer", Content={"ZipFile": content})["LayerVersionArn"]
    function("place", Layers=[layer], Environment={"Variables": {"MINE": "yes"}})
    call(api, "place", {})
    context = "eyJjdXN0b20iOnsiayI6InYifX0="  # {"custom":{"k":"v"}}
    told, answer = call(api, "place", {"do": "place"}, ClientContext=context)
    assert 8_000 < told.pop("left") <= 10_000
    assert 400 < told.pop("heap") < 436  # 85 % of 512, less one survivor space
    assert re.match(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}", told.pop("trace"))
    assert told.pop("arn").endswith(":function:place")
    assert told.pop("version") == RUNTIME.removeprefix("java").partition(".")[0]
    assert told == {
        "count": 2,
        "cwd": "/var/task",
        "home": "/var/lang",
        "execution": f"AWS_Lambda_{RUNTIME}",
        "mine": "yes",
        "child": "yes",
        "tmp": 1,
        "layer": "the layer",
        "name": "place",
        "memory": 512,
        "id": answer["ResponseMetadata"]["RequestId"],
        "client": {"k": "v"},
    }


def test_beans_and_streams_from_a_jar_in_lib(api, function, classes):
    function("beans", {"lib/shop.jar": jar(classes)}, Handler="shop.Shop::add")
    assert call(api, "beans", {"owner": "me", "prices": [1, 2]})[0] == {"owner": "me", "prices": [1, 2, 1], "total": 4}
    function("stream", {"lib/shop.jar": jar(classes)}, Handler="shop.Shop$Pipe")
    event = {"large": "x" * 5_000_000}
    assert call(api, "stream", event)[0] == event


def test_errors_show_their_cause_and_the_environment_lives_on(api, function):
    function("errors")
    answer, whole = call(api, "errors", {"do": "fail"})
    assert whole["FunctionError"] == "Unhandled"
    assert (answer["errorMessage"], answer["errorType"]) == ("no such thing", "java.lang.IllegalArgumentException")
    assert answer["stackTrace"][0].startswith("shop.Shop.handleRequest(Shop.java:")
    assert (answer["cause"]["errorMessage"], answer["cause"]["errorType"]) == ("because", "java.lang.RuntimeException")
    assert "no such thing: java.lang.IllegalArgumentException\n" in whole["log"]
    assert "Caused by: java.lang.RuntimeException: because" in whole["log"]
    answer, whole = call(api, "errors", {"a": 1})
    assert answer == {"a": 1}
    assert "Init Duration" not in whole["log"]


def test_a_handler_that_is_not_there(api, function):
    function("absent", Handler="shop.Absent::handle")
    answer, whole = call(api, "absent")
    assert answer == {"errorMessage": "Class not found: shop.Absent", "errorType": "java.lang.ClassNotFoundException"}
    assert whole["FunctionError"] == "Unhandled"
    assert call(api, "absent")[0] == answer


def test_a_constructor_that_throws_is_an_init_error(api, function):
    function("closed", Environment={"Variables": {"SLOW": "1"}})
    answer, whole = call(api, "closed", {})
    assert answer == {"errorMessage": "closed today", "errorType": "java.lang.IllegalStateException"}
    assert whole["FunctionError"] == "Unhandled"
    assert "made slowly" in whole["log"]
    api.update_function_configuration(FunctionName="closed", Environment={"Variables": {}})
    settle(api, "closed")
    assert call(api, "closed", {"b": 2})[0] == {"b": 2}


def test_timeout_exit_and_memory(api, function):
    function("ends", Timeout=1, MemorySize=256)
    answer, whole = call(api, "ends", {"do": "sleep"})
    id_ = whole["ResponseMetadata"]["RequestId"]
    assert answer == {"errorType": "Sandbox.Timedout", "errorMessage": f"RequestId: {id_} Error: Task timed out after 1.00 seconds"}
    assert "saw {do=sleep}" in whole["log"]
    assert call(api, "ends", {})[0] == {}
    answer, whole = call(api, "ends", {"do": "exit"})
    id_ = whole["ResponseMetadata"]["RequestId"]
    expected = {"errorType": "Runtime.ExitError", "errorMessage": f"RequestId: {id_} Error: Runtime exited with error: exit status 3"}
    assert answer == expected
    assert call(api, "ends", {})[0] == {}
    api.update_function_configuration(FunctionName="ends", Timeout=60)
    settle(api, "ends")
    answer, whole = call(api, "ends", {"do": "memory"})
    assert (answer["errorMessage"], answer["errorType"]) == ("Java heap space", "java.lang.OutOfMemoryError")
    assert call(api, "ends", {"do": "count"})[0] == 1  # a machine that was out of memory is not used again


def test_options_by_variable_and_wrapper(api, function):
    function("options", Environment={"Variables": {"JAVA_TOOL_OPTIONS": "-Xmx99m -Dx=y", "MINE": "m"}})
    _, whole = call(api, "options", {})
    assert whole["StatusCode"] == 200
    layer = io.BytesIO()
    with zipfile.ZipFile(layer, "w") as archive:
        entry = zipfile.ZipInfo("wrapper")
        entry.create_system, entry.external_attr = 3, 0o100755 << 16
        archive.writestr(entry, '#!/bin/sh\ncd /tmp\nexport MINE="wrapped $1"\nexec "$@"\n')
    arn = api.publish_layer_version(LayerName="wrapper", Content={"ZipFile": layer.getvalue()})["LayerVersionArn"]
    function("wrapped", Layers=[arn], Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrapper"}})
    answer, whole = call(api, "wrapped", {"do": "place"})
    assert answer["errorMessage"] == "java.lang.ClassNotFoundException: layered.Layered", whole["log"]


def test_logging_as_json(api, function):
    function("json", LoggingConfig={"LogFormat": "JSON"})
    _, whole = call(api, "json", {})
    records = [json.loads(line) for line in whole["log"].splitlines() if line.startswith("{")]
    mine = next(record for record in records if record.get("message") == "logged")
    assert mine["AWSRequestId"] == whole["ResponseMetadata"]["RequestId"]


def test_a_java_that_is_not_here_is_refused_by_name(api, classes):
    lacking = [name for name in FAMILIES["java"] if name not in RUNTIMES]
    if not lacking:
        pytest.skip("this machine has all of them")
    with pytest.raises(api.exceptions.InvalidParameterValueException, match=f"no Java .* for runtime {lacking[0]}.*Install a JDK"):
        api.create_function(FunctionName="no", Runtime=lacking[0], Role=ROLE, Handler="x", Code={"ZipFile": zipped(classes)})
