"""The life of an event source mapping, and what its kinds of source may say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambent.control.destinations import Destinations
from lambent.control.mapping_rules import KINDS, MappingRules
from lambent.control.mapping_state import IN_TRANSITION, TRANSITIONS, Event, MappingState, Phase
from lambent.errors import ClientFault, IllegalTransition

QUEUE = "arn:aws:sqs:us-east-1:123456789012:q"
FIFO = f"{QUEUE}.fifo"
STREAM = "arn:aws:kinesis:us-east-1:123456789012:stream/s"
TABLE = "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/2026"
MSK = "arn:aws:kafka:us-east-1:123456789012:cluster/c/1"
BROKERS = {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["kafka:1000"]}}
SECRET = [{"Type": "BASIC_AUTH", "URI": "arn:aws:secretsmanager:us-east-1:123456789012:secret:s"}]
NOW = 1_000_000.0


def test_from_creation_to_the_end():
    state = MappingState().handle(Event.CREATE, "1")
    assert (state.shown, state.polled) == ("Creating", False)
    state = state.handle(Event.SETTLED, "1")
    assert (state.shown, state.polled, state.fence) == ("Enabled", True, "")
    state = state.handle(Event.CHANGE, "2")
    assert (state.shown, state.polled) == ("Updating", True)
    state = state.handle(Event.SETTLED, "2").handle(Event.DISABLE, "3")
    assert (state.shown, state.polled) == ("Disabling", False)
    state = state.handle(Event.SETTLED, "3").handle(Event.CHANGE, "4")
    assert (state.shown, state.polled) == ("Updating", False)
    state = state.handle(Event.SETTLED, "4")
    assert state.shown == "Disabled"
    state = state.handle(Event.DELETE, "5")
    assert state.shown == "Deleting"
    assert state.handle(Event.SETTLED, "5").phase is Phase.ABSENT


def test_a_mapping_that_is_made_disabled_is_so_at_once():
    assert MappingState().handle(Event.CREATE_DISABLED, "1") == MappingState(Phase.DISABLED)


def test_the_end_of_another_transition_changes_nothing():
    state = MappingState().handle(Event.CREATE, "1")
    assert state.handle(Event.SETTLED, "0") is state


@pytest.mark.parametrize("phase", sorted(IN_TRANSITION, key=lambda phase: phase.value))
@pytest.mark.parametrize(("event", "verb"), [(Event.CHANGE, "update"), (Event.ENABLE, "update"), (Event.DELETE, "delete")])
def test_nobody_comes_in_between(phase: Phase, event: Event, verb: str):
    with pytest.raises(ClientFault) as caught:
        MappingState(phase, "1").handle(event, "2")
    assert (caught.value.code, caught.value.status) == ("ResourceInUseException", 400)
    assert caught.value.message == f"Cannot {verb} the event source mapping because it is in use."


def test_what_is_not_there_cannot_be_deleted():
    with pytest.raises(IllegalTransition):
        MappingState().handle(Event.DELETE, "1")


@given(st.lists(st.sampled_from([event for event in Event if event not in (Event.CREATE, Event.CREATE_DISABLED)])))
def test_every_transition_ends(events: list[Event]):
    """Whatever is asked, and however often: a transition ends where its table says, and polling needs an end of one first."""
    state = MappingState().handle(Event.CREATE, "0")
    for number, event in enumerate(events, 1):
        fence = state.fence if event is Event.SETTLED else str(number)
        before = state
        try:
            state = state.handle(event, fence)
        except ClientFault:
            assert before.phase in IN_TRANSITION
            continue
        except IllegalTransition:
            assert (before.phase, event) not in TRANSITIONS
            continue
        assert bool(state.fence) == (state.phase in IN_TRANSITION)
        if state.phase is Phase.ABSENT:
            assert before.phase is Phase.DELETING
            return


# -- rules ------------------------------------------------------------------------------------------------------------------------------


def rules(visibility: int | None = 30) -> MappingRules:
    destinations = Destinations(lambda arn: True, lambda arn: True)
    return MappingRules(destinations, lambda arn: visibility, 5)


def create(timeout: int = 3, visibility: int | None = 30, **params: Any) -> dict[str, Any]:
    return rules(visibility).create(params, timeout, NOW)[1]


def refusal(**params: Any) -> str:
    with pytest.raises(ClientFault) as caught:
        create(**params)
    assert caught.value.status == 400
    return caught.value.message


def test_a_queue_says_nothing_of_streams():
    assert create(EventSourceArn=QUEUE) == {
        "EventSourceArn": QUEUE,
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 0,
        "FunctionResponseTypes": [],
    }


@pytest.mark.parametrize("arn", [STREAM, TABLE])
def test_a_stream_says_all(arn: str):
    assert create(EventSourceArn=arn, StartingPosition="LATEST") == {
        "EventSourceArn": arn,
        "StartingPosition": "LATEST",
        "BatchSize": 100,
        "BisectBatchOnFunctionError": False,
        "DestinationConfig": {"OnFailure": {}},
        "FunctionResponseTypes": [],
        "MaximumBatchingWindowInSeconds": 0,
        "MaximumRecordAgeInSeconds": -1,
        "MaximumRetryAttempts": -1,
        "ParallelizationFactor": 1,
        "TumblingWindowInSeconds": 0,
    }


def test_brokers_of_ones_own():
    config = create(SelfManagedEventSource=BROKERS, Topics=["t"], SourceAccessConfigurations=SECRET)
    assert config["StartingPosition"] == "TRIM_HORIZON"
    assert len(config["SelfManagedKafkaEventSourceConfig"]["ConsumerGroupId"]) == 36
    own = create(EventSourceArn=MSK, Topics=["t"], AmazonManagedKafkaEventSourceConfig={"ConsumerGroupId": "mine"})
    assert own["AmazonManagedKafkaEventSourceConfig"] == {"ConsumerGroupId": "mine"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "Unrecognized event source."),
        ({"EventSourceArn": "arn:aws:s3:::b"}, "Unrecognized event source."),
        ({"SelfManagedEventSource": BROKERS, "Topics": ["t"]}, "Required 'sourceAccessConfigurations' parameter is missing."),
        (
            {"EventSourceArn": STREAM},
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null.",
        ),
        ({"EventSourceArn": TABLE, "StartingPosition": "AT_TIMESTAMP"}, f"Unsupported starting position for arn type: {TABLE}"),
        (
            {"EventSourceArn": QUEUE, "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sns:us-east-1:123456789012:t"}}},
            "Unsupported DestinationConfig parameter for given event source mapping type.",
        ),
        (
            {"EventSourceArn": STREAM, "StartingPosition": "LATEST", "DestinationConfig": {"OnSuccess": {"Destination": QUEUE}}},
            "Unsupported DestinationConfig parameter for given event source mapping type.",
        ),
        (
            {"EventSourceArn": QUEUE, "ParallelizationFactor": 2},
            "Unsupported ParallelizationFactor parameter for given event source mapping type.",
        ),
        (
            {"EventSourceArn": QUEUE, "BatchSize": 11},
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
        ),
        ({"EventSourceArn": QUEUE, "FilterCriteria": {"Filters": [{"Pattern": "no"}]}}, "Invalid filter pattern definition."),
        ({"EventSourceArn": QUEUE, "FilterCriteria": {"Filters": [{}]}}, "Invalid filter pattern definition."),
        ({"EventSourceArn": QUEUE, "timeout": 60}, "Queue visibility timeout: 30 seconds is less than Function timeout: 60 seconds"),
        (
            {"EventSourceArn": QUEUE, "visibility": None},
            "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. "
            "SQS Error Message: The specified queue does not exist.",
        ),
        (
            {"EventSourceArn": STREAM, "StartingPosition": "LATEST", "MaximumRecordAgeInSeconds": 59},
            "1 validation error detected: Value '59' at 'maximumRecordAgeInSeconds' failed to satisfy constraint: "
            "Member must have value greater than or equal to 60",
        ),
        (
            {"EventSourceArn": FIFO, "BatchSize": 11},
            "1 validation error detected: Value '11' at 'batchSize' failed to satisfy constraint: "
            "Member must have value less than or equal to 10",
        ),
        ({"EventSourceArn": FIFO, "MaximumBatchingWindowInSeconds": 1}, "Batching window is not supported for FIFO queues"),
        (
            {"EventSourceArn": QUEUE, "ScalingConfig": {"MaximumConcurrency": 2}, "ProvisionedPollerConfig": {"MinimumPollers": 2}},
            "ScalingConfig and ProvisionedPollerConfig must not be given together.",
        ),
        (
            {"EventSourceArn": MSK, "Topics": ["t"], "MaximumRetryAttempts": 1},
            "MaximumRetryAttempts is only supported for event source mappings with ProvisionedPollerConfig.",
        ),
        (
            {"EventSourceArn": STREAM, "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": NOW + 1},
            "StartingPositionTimestamp must not be in the future.",
        ),
    ],
)
def test_refusals(params: dict[str, Any], message: str):
    assert refusal(**params) == message


def test_six_filters_are_too_many():
    filters = [{"Pattern": '{"body":["a"]}'}] * 6
    assert "must not be greater than 5" in refusal(EventSourceArn=QUEUE, FilterCriteria={"Filters": filters})
    assert create(EventSourceArn=QUEUE, FilterCriteria={"Filters": filters[:5]})["FilterCriteria"] == {"Filters": filters[:5]}


def test_an_update_changes_what_it_names_and_empty_members_go():
    before = create(
        EventSourceArn=QUEUE, ScalingConfig={"MaximumConcurrency": 5}, FilterCriteria={"Filters": [{"Pattern": '{"body":["a"]}'}]}
    )
    after = rules().update(KINDS["sqs"], before, {"UUID": "u", "BatchSize": 5}, 3)
    assert after == {**before, "BatchSize": 5}
    after = rules().update(KINDS["sqs"], after, {"ScalingConfig": {}, "FilterCriteria": {"Filters": []}}, 3)
    assert after == {**create(EventSourceArn=QUEUE), "BatchSize": 5}


def test_pollers_are_filled_in():
    config = create(EventSourceArn=QUEUE, ProvisionedPollerConfig={"MaximumPollers": 10})
    assert config["ProvisionedPollerConfig"] == {"MinimumPollers": 2, "MaximumPollers": 10}
