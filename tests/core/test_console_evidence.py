"""What the console says of the second act: drift, the road, evidence in shadow, refusals, overrides, why cards."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from core.catalog import Catalog
from core.console.evidence import MARK, evidence, meter, still_needed
from core.console.facts import gather
from core.console.pages import compose
from core.console.wording import criterion, moment, sentence
from core.handoffs import RolloutState
from sync.evidence import ALPHA_SAFE, Counters, log_safe, pairs_needed
from sync.reports import ModelReport, RoadReport
from tests.core.console_world import (
    FORCED,
    MODEL,
    NOW,
    ONE,
    OVERRIDE,
    TWO,
    add_device,
    add_release,
    add_trust,
    declare,
    drifting,
    in_shadow,
    release,
    second_act,
    shadowing,
    steady,
    trial,
    why_card,
)
from tests.core.doors import concerns, page, words


def section(html: str, name: str) -> str:
    return words(html.partition(f'aria-labelledby="{name}"')[2].partition("</section>")[0])


# --- drift and the road -----------------------------------------------------------------------------------------


def test_who_drifted_is_said_worst_first_with_what_happens_next(
    operator: FlaskClient, catalog: Catalog, tmp_path: Path
) -> None:
    second_act(catalog, tmp_path)
    html = page(operator)
    said = concerns(html)
    assert "watch-3, watch-4, activity inputs (ax, wz) are not what they were when the release was committed" in said
    assert "since 2 h ago The core waits: 2 devices drifted since" in said
    learning = section(html, "learning")
    assert learning.index("watch-3") < learning.index("watch-4"), "half wrong comes before a quarter wrong"
    assert "1 h ago 2027-01-15 06:30 UTC 51.7 % of 120 labels 214 412.0 kB of 1.0 MB 0" in learning
    assert "75.8 % of 120 labels 9 999.0 kB of 1.0 MB 31" in learning
    assert "3 devices more without an alarm and without samples" in learning
    assert "Labelled predictions go up the road, sealed to the tenant&#39;s key." in learning


def test_no_road_is_said_plainly(operator: FlaskClient, catalog: Catalog, tmp_path: Path) -> None:
    declare(catalog, tmp_path, road=False)
    add_device(catalog, "watch-1", {MODEL: drifting(NOW - 60, 3)})
    learning = section(page(operator), "learning")
    assert "No road: no input leaves a device for this model. uplink in falaj.toml opens one." in learning
    assert "no road" in learning


def test_a_road_that_is_declared_opens_with_the_next_release(
    operator: FlaskClient, catalog: Catalog, tmp_path: Path
) -> None:
    declare(catalog, tmp_path)
    add_device(catalog, "watch-1", {MODEL: steady(2, road=RoadReport("none", 0, 0, 0))})
    assert "No road yet: labelled predictions go up" in section(page(operator), "learning")


def test_a_time_that_is_no_date_stops_no_page(operator: FlaskClient, catalog: Catalog, tmp_path: Path) -> None:
    declare(catalog, tmp_path)
    add_device(catalog, "watch-1", {MODEL: drifting(1e300, 3)})
    assert "second 1e+300" in section(page(operator), "learning")
    assert moment(1e300, NOW).clock == ""


# --- evidence ---------------------------------------------------------------------------------------------------


def test_a_release_in_shadow_shows_both_meters_and_every_device(
    operator: FlaskClient, catalog: Catalog, tmp_path: Path
) -> None:
    second_act(catalog, tmp_path)
    html = page(operator)
    text = section(html, "rollouts")
    assert '<li class="here busy" aria-current="step"><span>shadow</span>' in html
    for stage in ("approved", "canary", "ramp", "complete"):
        assert f"<span>{stage}</span>" in html
    assert "Evidence undecided so far, by labels" in text
    assert "worse 1 equal 16 better 3" in text
    assert "net share of 5.0 %" in text
    assert "It takes" in text
    assert "more blocks (" in text
    assert "6 disagreements wait for a label" in text
    assert "watch-1 0 9 2 220 70.0 % 93.8 % 56.2 % 176 0" in text
    assert "watch-2 1 7 1 180 70.0 % 93.8 % 56.2 % 144 6" in text
    assert 'aria-label="It does no worse: evidence 0.64, it decides at 3.00"' in html
    assert "gate overridden by " + OVERRIDE.replace("'", "&#39;") in text
    assert "waits for the labels of 6 pairs on watch-2 Run falaj labels DEVICE FILE.csv" in concerns(html)


def test_before_the_first_pair_it_says_so(operator: FlaskClient, catalog: Catalog) -> None:
    catalog.fleet.add_rollout(in_shadow())
    assert "No canary device has counted a pair yet." in section(page(operator), "rollouts")


def test_trials_of_another_attempt_or_device_are_not_shown() -> None:
    rollout = in_shadow(retry=1)
    assert evidence(rollout, {ONE: shadowing(trial(0, 5, 0)), TWO: None}).devices == ()
    assert evidence(rollout, {ONE: shadowing(trial(0, 5, 0, retry=1))}).equal == 5


def test_a_decision_stays_as_it_was_made(operator: FlaskClient, catalog: Catalog) -> None:
    decided = {ONE: trial(0, 40, 12)}
    catalog.fleet.add_rollout(in_shadow(RolloutState.CANARY, decided=decided))
    add_device(catalog, "watch-1", {MODEL: shadowing(trial(30, 1, 0))})
    html = page(operator)
    text = section(html, "rollouts")
    assert "Evidence safe when the shadow ended" in text
    assert "worse 0 equal 40 better 12" in text
    assert "It takes" not in text
    assert '<li class="past"><span>shadow</span>' in html


def test_a_release_refused_in_shadow_never_passed_the_canary(operator: FlaskClient, catalog: Catalog) -> None:
    decided = {ONE: trial(16, 1, 0)}
    catalog.fleet.add_rollout(in_shadow(RolloutState.REVERSED, decided=decided, reason="worse in 16 of 17 blocks"))
    catalog.fleet.add_why(ONE, why_card(), NOW)
    html = page(operator)
    track = html.split('aria-label="Stages"')[1].split("</ol>")[0]
    assert words(track).split() == [">", "approved", "shadow", "reversing", "reversed"]
    assert "Evidence worse when the shadow ended" in section(html, "rollouts")
    assert 'href="/why#why-1">Why card</a>' in html
    assert 'href="/why#why-1">Why a device refused it</a>' in html


def test_a_forced_release_is_marked_with_who_and_why(operator: FlaskClient, catalog: Catalog) -> None:
    add_release(catalog, 3, 0.97)
    catalog.fleet.add_rollout(in_shadow(RolloutState.CANARY, forced=FORCED, retry=1))
    add_device(catalog, "watch-1", {MODEL: steady(2, quarantined={release(3).manifest: 0})})
    add_device(catalog, "watch-2", {MODEL: steady(2, quarantined={release(3).manifest: 1})})
    html = page(operator)
    text = section(html, "rollouts")
    assert f"forced To serve without a shadow's word, by {FORCED}" in text
    assert f"was forced to serve without a shadow&#39;s word, by {FORCED}" in concerns(html)
    assert "<span>shadow</span>" not in html
    assert "watch-1 canary assigned" in text, "an older verdict is lifted"
    assert "watch-2 canary refused it" in text


def test_guardrails_and_first_releases_have_no_panel() -> None:
    assert evidence(in_shadow(RolloutState.CANARY, previous=None), {ONE: shadowing(trial(0, 5, 0))}) is None


@given(st.integers(0, 6), st.integers(0, 200), st.integers(0, 6), st.sampled_from((0.01, 0.02, 0.05, 0.2)))
def test_the_blocks_still_needed_are_enough_and_one_less_is_not(
    plus: int, zero: int, minus: int, margin: float
) -> None:
    def safe(more: int) -> bool:
        return log_safe(Counters(plus, zero + more, minus), margin) >= -math.log(ALPHA_SAFE)

    needed = still_needed(Counters(plus, zero, minus), margin)
    assert needed is not None
    assert safe(needed)
    assert needed == 0 or not safe(needed - 1)


def test_from_nothing_it_needs_what_the_plan_says() -> None:
    assert still_needed(Counters(), 0.05) == pairs_needed(0.05)
    assert still_needed(Counters(), 0.0) is None


@given(st.floats(-100, 100), st.floats(0.1, 10))
def test_a_meter_reaches_its_mark_just_when_it_decides(value: float, at: float) -> None:
    shown = meter("safe", value, at)
    assert 0 <= shown.filled <= 100
    assert shown.reached == (value >= at)
    if abs(value - at) > 0.01:
        assert shown.reached == (shown.filled >= MARK)


# --- refused candidates and why cards ---------------------------------------------------------------------------


def test_a_refused_candidate_shows_its_gates_and_the_way_past_them(
    operator: FlaskClient, catalog: Catalog, tmp_path: Path
) -> None:
    second_act(catalog, tmp_path)
    html = page(operator)
    text = section(html, "releases")
    assert "candidate 3 of activity refused 10 min ago , accuracy 61.0 % G2: accuracy 0.61" in text
    assert "falaj candidate override 3 --reason TEXT stages it all the same" in text
    assert "candidate 2" not in text, "it was overridden"
    assert "overridden by " + OVERRIDE.replace("'", "&#39;") in text
    assert "To let it pass all the same: falaj candidate override 3 --reason TEXT" in concerns(html)


def test_an_override_is_told_where_the_release_waits(operator: FlaskClient, catalog: Catalog) -> None:
    add_trust(catalog)
    add_release(catalog, 1, 0.7, accepted=False, override=OVERRIDE)
    said = concerns(page(operator))
    assert "waits for its owner&#39;s approval; a gate was overridden by cli:amal" in said
    assert "was refused" not in said


def test_a_why_card_has_criterion_both_sides_and_what_happened_next(operator: FlaskClient, catalog: Catalog) -> None:
    catalog.fleet.add_why(ONE, why_card(), NOW)
    bare = why_card(old=False, trial=None, log_harm=None, log_safe=None)
    catalog.fleet.add_why(TWO, bare, NOW)
    html = operator.get("/why").text
    text = words(html)
    assert text.index("watch-2 refused activity 3") < text.index("watch-1 refused activity 3"), "newest first"
    assert "It did worse than the release before it." in text
    assert "Right, by labels 31.0 % 96.0 %" in text
    assert "Answers 300 12\u202f408" in text
    assert "5.93 of 4.61 decided" in text
    assert "Worse in 14, equal in 1, better in 0 of 15 blocks of 20 input windows." in text
    assert "Returned to release 2, which answers again." in text
    assert "Nobody answers now." in text
    assert "No pairs were counted" in text
    assert 'id="why-1"' in html
    overview = page(operator)
    assert "Why releases were refused" in words(overview)
    assert 'href="/why#why-2"' in overview


def test_the_why_page_is_live_and_guarded(operator: FlaskClient, catalog: Catalog) -> None:
    html = operator.get("/why").text
    assert "No device has given a verdict against a release." in html
    poll = html.split('hx-get="')[1].split('"')[0]
    assert poll.startswith("/fragment/why?have=")
    assert operator.get(poll).status_code == 204
    catalog.fleet.add_why(ONE, why_card(), NOW)
    assert operator.get(poll).text.startswith('<div id="why"')
    assert operator.get("/fragment/nothing").status_code == 404
    operator.delete_cookie("falaj-console-default")
    assert operator.get("/why").status_code == 403


def test_a_refusal_links_the_card_of_its_device(operator: FlaskClient, catalog: Catalog) -> None:
    report = steady(2, wanted=release(3).manifest, quarantined={release(3).manifest: 0}, reason="worse in 14 of 15")
    add_device(catalog, "watch-1", {MODEL: report})
    catalog.fleet.add_why(TWO, why_card(), NOW)
    assert "The events below say why" in concerns(page(operator))
    catalog.fleet.add_why(ONE, why_card(), NOW)
    html = page(operator)
    assert "Its why card says by which criterion" in concerns(html)
    assert 'href="/why#why-2">Why card</a>' in html


def test_words() -> None:
    assert criterion("worse-than-incumbent") == "It did worse than the release before it"
    assert criterion("of-tomorrow") == "Of tomorrow"
    assert [sentence(text) for text in ("", "so it is", "Yes.")] == ["", "So it is.", "Yes."]


# --- the API ----------------------------------------------------------------------------------------------------


def test_rollouts_come_with_their_evidence(client: FlaskClient, catalog: Catalog, tmp_path: Path) -> None:
    catalog.fleet.add_rollout(in_shadow(RolloutState.REVERSED, decided={ONE: trial(16, 1, 0)}))
    second_act(catalog, tmp_path)
    now, past = client.get("/v1/rollouts").get_json()["rollouts"]
    shown = now["evidence"]
    assert (shown["decision"], shown["decided"]) == ("hold", False)
    assert (shown["plus"], shown["zero"], shown["minus"]) == (1, 16, 3)
    assert shown["log_safe"] == pytest.approx(log_safe(Counters(1, 16, 3), 0.05))
    assert shown["safe_at"] == pytest.approx(-math.log(ALPHA_SAFE))
    assert shown["needed"] == still_needed(Counters(1, 16, 3), 0.05)
    assert shown["devices"]["watch-2"]["waiting"] == 6
    assert (past["evidence"]["decision"], past["evidence"]["decided"]) == ("harm", True)


def test_a_device_that_left_the_fleet_has_no_word_on_any_page(
    client: FlaskClient, operator: FlaskClient, catalog: Catalog, tmp_path: Path
) -> None:
    """As at the steward: what the pages say decides is what decides."""
    second_act(catalog, tmp_path)
    before = client.get("/v1/status").get_json()["counts"]["devices"]
    with catalog.transaction():
        catalog.fleet.set_state(TWO, "revoked")
    shown = client.get("/v1/rollouts").get_json()["rollouts"][0]["evidence"]
    assert "watch-2" not in shown["devices"]
    assert client.get("/v1/status").get_json()["counts"]["devices"] == before - 1
    facts = gather(catalog, NOW)
    assert TWO not in facts.reports(MODEL) and compose(facts, NOW).enrolled == before - 1
    assert "watch-2" in page(operator), "it is shown all the same"


def test_why_retraining_and_project_are_read(client: FlaskClient, catalog: Catalog, tmp_path: Path) -> None:
    assert client.get("/v1/why").get_json() == {"whys": []}
    assert client.get("/v1/retraining").get_json() == {"retraining": {}}
    assert client.get("/v1/project").get_json() == {"project": None, "folder": ""}
    second_act(catalog, tmp_path)
    catalog.fleet.add_why(ONE, why_card(), NOW)
    (card,) = client.get("/v1/why?model=activity").get_json()["whys"]
    assert (card["id"], card["device"], card["criterion"]) == (1, "watch-1", "worse-than-incumbent")
    assert card["old"]["number"] == 2
    assert client.get("/v1/why?model=other").get_json() == {"whys": []}
    hop = client.get("/v1/retraining").get_json()["retraining"]["activity"]
    assert hop["kind"] == "none"
    assert hop["reason"].startswith("2 devices drifted since")
    project = client.get("/v1/project").get_json()
    assert project["folder"] == str(tmp_path)
    assert project["project"]["models"]["activity"]["uplink"]["policy"] == "labelled"


def test_a_report_without_a_trial_counts_nothing(client: FlaskClient, catalog: Catalog) -> None:
    catalog.fleet.add_rollout(in_shadow(RolloutState.CANARY))
    add_device(catalog, "watch-1", {MODEL: ModelReport("steady", NOW)})
    assert client.get("/v1/rollouts").get_json()["rollouts"][0]["evidence"] is None
