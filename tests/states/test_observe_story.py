"""The story is bounded twice, and can be told by subject and by cause."""

from lambent.observe.story import Story


def test_a_story_is_told_in_order_and_keeps_the_newest():
    story = Story(per_subject=3)
    for number in range(5):
        story.record("env-1", f"event {number}", cause="req-1", at=float(number))
    assert [entry.event for entry in story.tell("env-1")] == ["event 2", "event 3", "event 4"]
    assert story.tell("nobody") == []


def test_the_subject_silent_for_longest_is_forgotten_first():
    story = Story(subjects=2)
    story.record("a", "started")
    story.record("b", "started")
    story.record("a", "leased")
    story.record("c", "started")
    assert len(story) == 2
    assert story.tell("b") == []
    assert [entry.event for entry in story.tell("a")] == ["started", "leased"]
    story.forget("a")
    assert story.tell("a") == []


def test_what_one_cause_did_is_found_across_subjects():
    story = Story()
    story.record("env-2", "stopped", cause="req-9", at=2.0)
    story.record("env-1", "leased", cause="req-9", at=1.0)
    story.record("env-1", "returned", cause="req-8", at=3.0)
    assert [(entry.subject, entry.event) for entry in story.caused_by("req-9")] == [("env-1", "leased"), ("env-2", "stopped")]


def test_a_story_reads_as_text_and_as_documents():
    story = Story()
    story.record("env-1", "stopped", cause="req-9", detail="exit status 1", at=2.5)
    assert story.text("env-1") == "2.500 stopped because of req-9: exit status 1"
    assert story.tell("env-1")[0].document() == {
        "subject": "env-1",
        "event": "stopped",
        "cause": "req-9",
        "detail": "exit status 1",
        "at": 2.5,
    }
