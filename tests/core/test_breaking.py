"""Other classes are a breaking schema: refused at training, commit, override and approval, unless `major` rises."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from core import orders
from core.breaking import ClassesChanged, NoSuchClass, check, complaint, declared, known
from core.handoffs import Candidate, Known
from core.project import Project
from sync import codec
from sync.bindings import Binding, When
from sync.manifest import LIMIT, Manifest
from tests.core.world import MODEL, World, project
from tests.sync.manifests import PLAIN_VARIANT, release

BEFORE = Known(3, 2, ("rest", "walk"))


def apply(world: World, major: int) -> None:
    given = project()
    wanted = replace(given, models={MODEL: replace(given.models[MODEL], major=major)})
    world.must(orders.ApplyProject(project=wanted, folder=str(world.folder)))


def other_classes(world: World, *, accepted: bool = True) -> Candidate:
    return replace(world.candidate(b"another", accepted=accepted), classes=("jump", "rest", "run"))


def commit(world: World, candidate: Candidate) -> dict[str, object]:
    return world.must(orders.CommitCandidate(job=world.job(), candidate=candidate))


def test_the_first_release_and_the_same_classes_break_nothing() -> None:
    assert complaint(MODEL, ("a", "b"), 1, None) == ""
    assert complaint(MODEL, ("walk", "rest"), 2, BEFORE) == "", "an order is no schema: the document names its classes"
    assert complaint(MODEL, ("rest", "walk", "run"), 3, BEFORE) == ""


@pytest.mark.parametrize(
    ("classes", "major", "says"),
    [
        (("rest", "run", "walk"), 2, "adds class run"),
        (("rest",), 2, "removes class walk"),
        (("rest", "run"), 2, "adds class run and removes class walk"),
        (("rest", "walk"), 1, "major = 1 goes back: listeners know 2"),
        (("rest", "run"), 1, "goes back"),
    ],
)
def test_what_breaks_is_said_with_the_release_it_breaks_with(classes: tuple[str, ...], major: int, says: str) -> None:
    said = complaint(MODEL, classes, major, BEFORE)
    assert says in said and "against release 3" in said
    assert "goes back" in said or "major = 3" in said


def test_a_training_is_refused_before_it_costs_hours() -> None:
    model = project().models[MODEL]
    with pytest.raises(ClassesChanged, match="adds class run"):
        check(MODEL, replace(model, major=2), ("rest", "run", "walk"), BEFORE)
    alarm = Binding("a/{entity}", "b", emit="when", when=When(0.8, "fault"))
    with pytest.raises(NoSuchClass, match=r"when\.class 'fault' is no class of it; they are rest, walk"):
        check(MODEL, replace(model, bindings=(alarm,)), ("rest", "walk"), None)
    check(MODEL, replace(model, bindings=(alarm,)), ("fault", "fine"), None)


def test_a_training_is_told_what_listeners_know(world: World) -> None:
    world.job()
    assert world.jobs[-1].known is None
    world.must(orders.JobFailed(job=world.jobs[-1].job, error="none"))
    number, _ = world.release()
    world.job()
    assert world.jobs[-1].known == Known(number, 1, ("rest", "walk", "run"))


def test_a_candidate_with_other_classes_is_refused_and_nobody_can_overrule_that(world: World) -> None:
    world.release()
    said = commit(world, other_classes(world))
    assert said["accepted"] is False and world.codes()[-1] == "candidate-refused"
    number = said["candidate"]
    kept = world.catalog.releases.candidate(int(str(number)))
    assert kept is not None and not kept.accepted and kept.verdicts[-1].gate == "schema"
    assert "adds class jump and removes class walk" in kept.verdicts[-1].text
    answer = world.order(orders.Override(candidate=int(str(number)), reason="I know better"))
    assert (answer.ok, answer.code) == (False, "classes-changed") and "major = 2" in answer.error
    assert world.catalog.releases.release(MODEL, 2) is None, "no number is used up"


def test_with_a_higher_major_version_the_same_candidate_goes_on(world: World) -> None:
    world.release()
    apply(world, 2)
    said = commit(world, other_classes(world))
    assert said["accepted"] is True
    found = world.catalog.releases.release(MODEL, 2)
    assert found is not None and codec.decode(Manifest, found[1], LIMIT).major == 2
    world.must(world.approval(2))
    assert known(world.catalog.releases.newest_approved(MODEL)) == Known(2, 2, ("jump", "rest", "run"))
    assert commit(world, other_classes(world))["accepted"] is True, "what follows breaks nothing any more"


def test_a_release_that_was_staged_before_the_break_is_not_approved_after_it(world: World) -> None:
    """It waited while the world moved on: listeners know the new classes now."""
    world.release()
    waiting = world.stage(b"waits")
    apply(world, 2)
    commit(world, other_classes(world))
    world.must(world.approval(3))
    answer = world.order(world.approval(waiting))
    assert (answer.ok, answer.code) == (False, "classes-changed") and "goes back" in answer.error


def test_what_was_released_before_majors_counts_as_the_first() -> None:
    old = codec.decode(Manifest, _without_major(), LIMIT)
    assert old.major == 1 and old.bindings[0].format == "json"


def _without_major() -> bytes:
    """A manifest as releases of before had it."""
    document = msgspec.json.decode(codec.encode(release(PLAIN_VARIANT)))
    del document["major"]
    kept = ("topic", "output", "time_field", "emit")
    document["bindings"] = [{name: one[name] for name in kept} for one in document["bindings"]]
    return msgspec.json.encode(document)


def labelled(major: int, *values: str) -> Project:
    given = project()
    columns = given.contracts["rows"].columns
    label = replace(columns["label"], values=values or None)
    contracts = {"rows": replace(given.contracts["rows"], columns={**columns, "label": label})}
    return replace(given, contracts=contracts, models={MODEL: replace(given.models[MODEL], major=major)})


def test_a_plan_says_it_where_the_contract_names_the_labels() -> None:
    before = labelled(1, "rest", "walk")
    assert declared(before, before) == [] and declared(None, before) == [] and declared(labelled(1), before) == []
    assert declared(before, labelled(2, "rest", "run")) == []
    (said,) = declared(before, labelled(1, "rest", "walk", "run"))
    assert said.startswith(f"models.{MODEL} adds class run: a breaking schema")
    assert declared(before, Project()) == []
