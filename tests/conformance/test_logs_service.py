"""CloudWatch Logs over the log store: AWS's answers and AWS's errors. Every answer is checked against botocore's model."""

import asyncio

import botocore.session
import pytest
from botocore import xform_name
from botocore.validate import ParamValidator

from lambent.errors import ClientFault
from lambent.observe.log_sink import LogStream
from lambent.observe.log_store import LogStore
from lambent.services.logs import LogsService
from lambent.testing.clock import ManualClock
from lambent.wire.call import Call

MODEL = botocore.session.get_session().get_service_model("logs")
NOW = 1_767_225_600_000
CALL = Call("id", "000000000000", "us-east-1", "key", "arn:aws:iam::000000000000:root", "http://127.0.0.1:4566")
GROUP = "/aws/lambda/f"
ARN = "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/f"
STREAM = LogStream("000000000000", "us-east-1", GROUP, "2026/01/01/[$LATEST]aaaa")
HOUR, DAY = 3_600_000, 86_400_000


class Client:
    """Calls operations by name, and holds their parameters and answers against the model."""

    def __init__(self, store, clock):
        self.store, self.clock = store, clock
        self.service = LogsService(store, clock)

    async def call(self, operation, **params):
        model = MODEL.operation_model(operation)
        self.check(params, model.input_shape)
        answer = await getattr(self.service, xform_name(operation))(CALL, params)
        if model.output_shape is None:
            assert answer == {}
        else:
            self.check(answer, model.output_shape)
        return answer

    async def refused(self, operation, **params):
        with pytest.raises(ClientFault) as caught:
            await self.call(operation, **params)
        names = {shape.name for shape in MODEL.operation_model(operation).error_shapes}
        assert caught.value.code in names
        assert caught.value.status == 400
        return caught.value.code, caught.value.message

    @staticmethod
    def check(value, shape):
        report = ParamValidator().validate(value, shape)
        assert not report.has_errors(), report.generate_report()


@pytest.fixture
def logs(tmp_path):
    def run(scenario):
        async def main():
            clock = ManualClock()
            store = LogStore(tmp_path / "data", clock)
            await store.open()
            try:
                await scenario(Client(store, clock))
            finally:
                await store.close()

        asyncio.run(main())

    return run


NO_GROUP = ("ResourceNotFoundException", "The specified log group does not exist.")
NO_STREAM = ("ResourceNotFoundException", "The specified log stream does not exist.")


def test_the_life_of_a_group(logs):
    async def scenario(client):
        await client.call("CreateLogGroup", logGroupName=GROUP, tags={"team": "a"})
        assert await client.refused("CreateLogGroup", logGroupName=GROUP) == (
            "ResourceAlreadyExistsException",
            "The specified log group already exists",
        )
        await client.call("PutRetentionPolicy", logGroupName=GROUP, retentionInDays=14)
        answer = await client.call("DescribeLogGroups", logGroupNamePrefix="/aws/")
        assert answer == {
            "logGroups": [
                {
                    "logGroupName": GROUP,
                    "creationTime": NOW,
                    "retentionInDays": 14,
                    "metricFilterCount": 0,
                    "arn": ARN + ":*",
                    "logGroupArn": ARN,
                    "storedBytes": 0,
                    "logGroupClass": "STANDARD",
                    "deletionProtectionEnabled": False,
                }
            ]
        }
        assert (await client.call("DescribeLogGroups", logGroupClass="INFREQUENT_ACCESS"))["logGroups"] == []
        by_name = await client.call("DescribeLogGroups", logGroupIdentifiers=[ARN, "/aws/lambda"])
        assert by_name == answer
        await client.call("DeleteRetentionPolicy", logGroupName=GROUP)
        assert "retentionInDays" not in (await client.call("DescribeLogGroups"))["logGroups"][0]
        await client.call("DeleteLogGroup", logGroupName=GROUP)
        assert await client.call("DescribeLogGroups") == {"logGroups": []}

    logs(scenario)


def test_what_is_not_there_is_said_in_awss_words(logs):
    async def scenario(client):
        stream = {"logGroupName": GROUP, "logStreamName": "s"}
        events = {"logEvents": [{"timestamp": NOW, "message": "x"}]}
        assert await client.refused("DeleteLogGroup", logGroupName=GROUP) == NO_GROUP
        assert await client.refused("PutRetentionPolicy", logGroupName=GROUP, retentionInDays=1) == NO_GROUP
        assert await client.refused("DeleteRetentionPolicy", logGroupName=GROUP) == NO_GROUP
        assert await client.refused("CreateLogStream", **stream) == NO_GROUP
        assert await client.refused("DescribeLogStreams", logGroupName=GROUP) == NO_GROUP
        assert await client.refused("GetLogEvents", **stream) == NO_GROUP
        assert await client.refused("FilterLogEvents", logGroupName=GROUP) == NO_GROUP
        assert await client.refused("PutLogEvents", **stream, **events) == NO_GROUP
        assert await client.refused("TagResource", resourceArn=ARN, tags={"a": "b"}) == NO_GROUP
        await client.call("CreateLogGroup", logGroupName=GROUP)
        assert await client.refused("GetLogEvents", **stream) == NO_STREAM
        assert await client.refused("DeleteLogStream", **stream) == NO_STREAM
        assert await client.refused("PutLogEvents", **stream, **events) == NO_STREAM
        assert await client.refused("FilterLogEvents", logGroupName=GROUP, logStreamNames=["s"]) == NO_STREAM
        foreign = ARN.replace("000000000000", "111111111111")
        assert await client.refused("FilterLogEvents", logGroupIdentifier=foreign) == NO_GROUP

    logs(scenario)


def test_what_does_not_go_together_is_refused(logs):
    async def scenario(client):
        await client.call("CreateLogGroup", logGroupName=GROUP)

        async def invalid(operation, **params):
            code, message = await client.refused(operation, **params)
            assert code == "InvalidParameterException"
            return message

        assert "retention" in await invalid("PutRetentionPolicy", logGroupName=GROUP, retentionInDays=2)
        await invalid("DescribeLogGroups", logGroupNamePrefix="a", logGroupNamePattern="b")
        await invalid("DescribeLogGroups", logGroupNamePrefix="a", logGroupIdentifiers=["b"])
        await invalid("DescribeLogGroups", nextToken="nonsense")
        await invalid("CreateLogGroup", logGroupName="g", deletionProtectionEnabled=True)
        await invalid("DescribeLogStreams", logGroupName=GROUP, logStreamNamePrefix="a", orderBy="LastEventTime")
        await invalid("DescribeLogStreams")
        await invalid("FilterLogEvents", logGroupName=GROUP, logGroupIdentifier=ARN)
        await invalid("FilterLogEvents", logGroupName=GROUP, logStreamNames=["a"], logStreamNamePrefix="b")
        await invalid("FilterLogEvents", logGroupName=GROUP, startTime=2, endTime=1)
        await invalid("FilterLogEvents", logGroupName=GROUP, nextToken="nonsense")
        assert await invalid("FilterLogEvents", logGroupName=GROUP, filterPattern="a:b") == "Invalid character(s) in term 'a:b'"
        await invalid("FilterLogEvents", logGroupIdentifier="arn:aws:s3:::bucket")

    logs(scenario)


def test_streams_are_described(logs):
    async def scenario(client):
        await client.call("CreateLogGroup", logGroupName=GROUP)
        await client.call("CreateLogStream", logGroupName=GROUP, logStreamName="empty")
        client.store.write(STREAM, [(NOW - 7, "x"), (NOW, "y")])
        answer = await client.call("DescribeLogStreams", logGroupName=GROUP, orderBy="LastEventTime", descending=True, limit=1)
        assert answer["logStreams"] == [
            {
                "logStreamName": STREAM.name,
                "creationTime": NOW,
                "firstEventTimestamp": NOW - 7,
                "lastEventTimestamp": NOW,
                "lastIngestionTime": NOW,
                "arn": f"{ARN}:log-stream:{STREAM.name}",
                "storedBytes": 0,
            }
        ]
        token = answer["nextToken"]
        rest = await client.call("DescribeLogStreams", logGroupIdentifier=ARN, orderBy="LastEventTime", descending=True, nextToken=token)
        assert [stream["logStreamName"] for stream in rest["logStreams"]] == ["empty"]
        assert "nextToken" not in rest
        assert "lastEventTimestamp" not in rest["logStreams"][0]

    logs(scenario)


def test_events_are_put_and_got(logs):
    async def scenario(client):
        stream = {"logGroupName": GROUP, "logStreamName": "s"}
        await client.call("CreateLogGroup", logGroupName=GROUP)
        await client.call("CreateLogStream", **stream)
        answer = await client.call("PutLogEvents", **stream, logEvents=[{"timestamp": NOW + n, "message": f"m{n}"} for n in range(3)])
        assert set(answer) == {"nextSequenceToken"}
        page = await client.call("GetLogEvents", **stream, startFromHead=True, limit=2)
        assert page["events"] == [{"timestamp": NOW + n, "message": f"m{n}", "ingestionTime": NOW} for n in range(2)]
        assert page["nextForwardToken"].startswith("f/")
        assert page["nextBackwardToken"].startswith("b/")
        page = await client.call("GetLogEvents", **stream, startFromHead=True, nextToken=page["nextForwardToken"])
        assert [event["message"] for event in page["events"]] == ["m2"]
        page = await client.call("GetLogEvents", **stream, startTime=NOW + 1, endTime=NOW + 2)
        assert [event["message"] for event in page["events"]] == ["m1"]

    logs(scenario)


def test_a_batch_has_rules(logs):
    async def scenario(client):
        stream = {"logGroupName": GROUP, "logStreamName": "s"}
        await client.call("CreateLogGroup", logGroupName=GROUP)
        await client.call("CreateLogStream", **stream)
        await client.call("PutRetentionPolicy", logGroupName=GROUP, retentionInDays=7)

        async def put(*times, message="x"):
            return await client.call("PutLogEvents", **stream, logEvents=[{"timestamp": time, "message": message} for time in times])

        answer = await put(NOW - 20 * DAY, NOW - 10 * DAY, NOW - HOUR, NOW, NOW + 2 * HOUR, NOW + 2 * HOUR + 1)
        assert answer["rejectedLogEventsInfo"] == {
            "tooOldLogEventEndIndex": 1,
            "expiredLogEventEndIndex": 2,
            "tooNewLogEventStartIndex": 5,
        }
        page = await client.call("FilterLogEvents", logGroupName=GROUP)
        assert [event["timestamp"] - NOW for event in page["events"]] == [-HOUR, 0, 2 * HOUR]
        with pytest.raises(ClientFault, match="chronological"):
            await put(NOW, NOW - 1)
        with pytest.raises(ClientFault, match="24 hours"):
            await put(NOW - 2 * DAY, NOW)
        with pytest.raises(ClientFault, match="Upload too large"):
            await put(NOW, NOW, message="x" * 600_000)

    logs(scenario)


def test_tags(logs):
    async def scenario(client):
        await client.call("CreateLogGroup", logGroupName=GROUP)
        await client.call("TagResource", resourceArn=ARN, tags={"a": "1", "b": "2"})
        await client.call("TagLogGroup", logGroupName=GROUP, tags={"c": "3"})
        assert await client.call("ListTagsForResource", resourceArn=ARN + ":*") == {"tags": {"a": "1", "b": "2", "c": "3"}}
        await client.call("UntagResource", resourceArn=ARN, tagKeys=["a"])
        await client.call("UntagLogGroup", logGroupName=GROUP, tags=["c"])
        assert await client.call("ListTagsLogGroup", logGroupName=GROUP) == {"tags": {"b": "2"}}
        code, _ = await client.refused("TagResource", resourceArn=ARN, tags={f"k{number}": "" for number in range(50)})
        assert code == "TooManyTagsException"

    logs(scenario)


def test_following_a_log_as_the_cli_does(logs):
    """``aws logs tail --follow``: pages by token; at the end from the newest timestamp on again, leaving out the event ids it knows."""

    async def scenario(client):
        params = {"logGroupName": GROUP, "interleaved": True, "startTime": NOW - 600_000, "limit": 7}
        known, shown, written = {}, [], []

        async def poll():
            while True:
                answer = await client.call("FilterLogEvents", **params)
                for event in answer["events"]:
                    if event["eventId"] not in known:
                        known[event["eventId"]] = event["timestamp"]
                        shown.append(event["message"])
                if "nextToken" not in answer:
                    params.pop("nextToken", None)
                    params["startTime"] = max(known.values(), default=params["startTime"])
                    return
                params["nextToken"] = answer["nextToken"]

        await client.call("CreateLogGroup", logGroupName=GROUP)
        await poll()
        for round_ in range(6):
            for number in range(round_ * 4):
                stream = LogStream(STREAM.account, STREAM.region, GROUP, f"stream-{number % 3}")
                message = f"{round_}.{number}"
                client.store.write(stream, [(int(client.clock.now() * 1000), message)])
                written.append(message)
                if number % 5 == 0:
                    client.clock.advance(0.001)
            await poll()
            assert shown == written

    logs(scenario)
