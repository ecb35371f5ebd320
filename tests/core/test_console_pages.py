"""The pages: who gets in, what they show over a real catalog, and that nothing in it can become markup."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

import core.console
from core.catalog import Catalog, open_catalog
from core.console import create_pages
from core.console.wording import badge, duration, moment, relative, share, size
from core.handoffs import Rollout, RolloutState
from core.project import Project
from core.release import signing
from sync.messages import Gates
from sync.names import LAST, DeviceId
from sync.reports import ANY, DriftReport, ModelReport, Validated
from tests.core.console_world import (
    KEY,
    MODEL,
    NOW,
    add_device,
    add_release,
    add_trust,
    artifact,
    declare,
    release,
    steady,
)  # fmt: skip
from tests.core.doors import TOKEN, concerns, page, words

STATIC = Path(core.console.__file__).parent / "static"
XSS = "<script>alert('x')</script>"


# --- who gets in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/fragment/overview", "/?token=wrong", "/?token=", "/?token=%ff", "/none"])
def test_without_the_token_a_page_says_how_to_get_the_link(stranger: FlaskClient, path: str) -> None:
    response = stranger.get(path)
    assert response.status_code == 403
    assert "falaj core link" in response.text
    assert "Devices" not in response.text


def test_the_token_is_traded_for_a_cookie_that_is_not_the_token(stranger: FlaskClient) -> None:
    response = stranger.get("/", query_string={"token": TOKEN})
    cookie = response.headers["Set-Cookie"]
    assert cookie.startswith("falaj-console-default=")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie + response.text
    assert 'content="0; url=/"' in response.text
    assert stranger.get("/").status_code == 200
    assert stranger.get("/?token=wrong").status_code == 403


def test_a_made_up_cookie_does_not_open(stranger: FlaskClient) -> None:
    for value in ("", TOKEN, "0" * 64, "é"):
        stranger.set_cookie("falaj-console-default", value)
        assert stranger.get("/").status_code == 403


def test_pages_without_a_token_are_not_made() -> None:
    with pytest.raises(ValueError, match="falaj core link"):
        create_pages(lambda: pytest.fail("no catalog is needed"), "", lambda: NOW)


def test_nothing_inline_and_nothing_from_elsewhere(operator: FlaskClient, catalog: Catalog) -> None:
    fill_busy(catalog)
    response = operator.get("/")
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"<style|<script(?! src=\"/)|\sstyle=|\son\w+=|https?://|javascript:", response.text)


@pytest.mark.parametrize("name", ["console.css", "live.js", "htmx.min.js", "falaj.svg"])
def test_assets_are_served_from_here(stranger: FlaskClient, name: str) -> None:
    with stranger.get(f"/static/{name}") as response:
        assert response.status_code == 200
        assert "Content-Security-Policy" in response.headers


def test_the_vendored_file_is_the_one_that_is_written_down() -> None:
    digest = hashlib.sha256((STATIC / "htmx.min.js").read_bytes()).hexdigest()
    assert digest in (STATIC / "VENDORED.md").read_text()


def test_only_reading_is_possible(operator: FlaskClient) -> None:
    for path in ("/", "/fragment/overview"):
        assert operator.post(path).status_code == 405
    assert operator.get("/elsewhere").status_code == 404


def test_a_catalog_that_does_not_open_is_a_page_too(tmp_path: Path) -> None:
    app = create_pages(lambda: open_catalog(tmp_path / "none.db", KEY, read_only=True), TOKEN, lambda: NOW)
    client = app.test_client()
    client.get("/", query_string={"token": TOKEN})
    response = client.get("/")
    assert response.status_code == 503
    assert "the core has not run here yet" in response.text


# --- what it shows ----------------------------------------------------------------------------------------------


def fill_busy(catalog: Catalog) -> None:
    """A rollout in canary, a device away, a failed job, one running, and a hostile event."""
    add_trust(catalog)
    add_release(catalog, 2, 0.961)
    add_release(catalog, 3, 0.974)
    for number in (2, 3):
        catalog.releases.set_state(MODEL, number, "approved")
    add_device(catalog, "watch-1", {MODEL: steady(3)})
    add_device(catalog, "watch-2", {MODEL: steady(2, errors=17)}, state="offline")
    rollout = Rollout(
        MODEL, 3, release(3).manifest, (DeviceId("watch-1"),), Gates(), RolloutState.CANARY, NOW - 300, 2,
        (DeviceId("watch-1"),), "canary assigned",
    )  # fmt: skip
    catalog.fleet.add_rollout(rollout)
    failed = catalog.projects.new_job("ingest", "watches", "cli", NOW - 900)
    catalog.projects.finish(failed, NOW - 890, {}, f"column {XSS} is missing", "run `falaj ingest watches` again")
    running = catalog.projects.new_job("train", MODEL, "cli", NOW - 60)
    catalog.projects.progress(running, "quantize", 0.62)
    catalog.events.add(NOW - 30, "watch-2", "errors", f"17 errors {XSS}", severity="alarm", model=MODEL)


def test_an_empty_core_says_what_to_do_next(operator: FlaskClient) -> None:
    text = words(page(operator))
    for next_step in (
        "No device has enrolled. falaj device token NAME prints a token",
        "No project has been applied. falaj apply",
        "falaj trust approve MODEL@NUMBER starts a rollout",
        "falaj trust init makes the keys",
        "Nothing has run yet. falaj ingest SOURCE",
        "Nothing has happened yet",
    ):
        assert next_step in text
    assert "Nothing is broken , 1 notice" in text.replace("broken,", "broken ,")


def test_with_a_project_the_next_step_is_training(operator: FlaskClient, catalog: Catalog) -> None:
    catalog.projects.apply(Project(), "/srv/plant", "cli", NOW)
    assert "falaj train MODEL" in words(page(operator))


def test_the_fleet_is_shown_with_what_each_device_validated(operator: FlaskClient, catalog: Catalog) -> None:
    fill_busy(catalog)
    html = page(operator)
    text = words(html)
    assert f"3 {release(3).manifest[:10]} 2 h ago , p99 2.5 ms" in text.replace("ago,", "ago ,")
    assert "12\u202f408" in text
    assert "keys unprotected" in text
    assert "0.1.0" in text
    assert '<time datetime="2027-01-15T07:59:40Z"' in html
    assert "1 of 2 online" in text


def test_the_worst_comes_first_with_what_to_do(operator: FlaskClient, catalog: Catalog) -> None:
    fill_busy(catalog)
    html = page(operator)
    said = concerns(html)
    assert "2 alarms, 1 notice" in said
    assert "<title>(2) Falaj</title>" in html
    assert "watch-2 went offline 1 h ago It goes on serving by itself" in said
    assert "job 1, ingest watches failed" in said
    assert "falaj ingest watches" in said
    assert said.index("job 1") < said.index("17 of 12\u202f425 answers failed")


def test_when_all_is_well_it_says_so(operator: FlaskClient, catalog: Catalog) -> None:
    add_trust(catalog)
    add_device(catalog, "watch-1", {MODEL: steady(1)})
    html = page(operator)
    assert "All is well 1 of 1 devices online" in concerns(html)
    assert "<title>Falaj</title>" in html


def test_the_rollout_shows_its_stage_and_who_committed(operator: FlaskClient, catalog: Catalog) -> None:
    fill_busy(catalog)
    html = page(operator)
    text = words(html)
    assert '<li class="here busy" aria-current="step"><span>canary</span>' in html
    assert "1 of 2 devices committed" in text
    assert "watch-1 canary committed" in text
    assert "watch-2 waits" in text
    assert "canary, 5 min ago : canary assigned." in text.replace("ago:", "ago :")
    assert "The way back is release 2." in text


def test_releases_jobs_and_trust_have_their_figures(operator: FlaskClient, catalog: Catalog) -> None:
    fill_busy(catalog)
    html = page(operator)
    text = words(html)
    for figure in ("97.4 %", "of 266 rows", "0.18 ms", "41.3 kB", "1 passed", "keys on this machine", "single-owner"):
        assert figure in text
    assert '<progress max="1" value="0.620"' in html
    assert "62 %, quantize" in text


def test_no_text_of_the_catalog_becomes_markup(operator: FlaskClient, catalog: Catalog) -> None:
    fill_busy(catalog)
    for html in (page(operator), operator.get("/fragment/overview").text):
        assert "<script>alert" not in html
        assert html.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;") == 3  # concern, job, event


def test_severities_are_worded_not_only_coloured(operator: FlaskClient, catalog: Catalog) -> None:
    for severity in ("info", "notice", "alarm", "stranger"):
        catalog.events.add(NOW, "core", "code", "text", severity=severity)
    html = page(operator)
    for level, word in (("plain", "info"), ("notice", "notice"), ("alarm", "alarm"), ("notice", "stranger")):
        assert f'<span class="badge {level}">{word}</span>' in html


# --- what needs a person ----------------------------------------------------------------------------------------


UNREADABLE = "it cannot read one of its own verdicts, which may be against any"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (ModelReport("reverting", NOW, release(2), reason="error rate"), "is going back to its previous release"),
        (
            steady(2, wanted=release(3).manifest, quarantined={release(3).manifest: 0}, reason="golden vectors"),
            f"refused release {release(3).manifest[:10]}: golden vectors",
        ),
        (
            steady(2, quarantined={ANY: 0}),
            f"takes up no other release: {UNREADABLE} falaj rollout force {MODEL} NUMBER",
        ),
        (steady(2, quarantined={ANY: LAST}), f"takes up no other release: {UNREADABLE} No attempt lifts it: wipe the"),
        (steady(2, validated=None), "serves release 2 without a validation"),
        (steady(2, validated=Validated(artifact(1), NOW, 2.0)), "serves release 2 without a validation"),
        (ModelReport("no_model", NOW, wanted=release(1).manifest, reason="keys"), "has no model yet: keys"),
        (
            steady(2, drift=DriftReport("alarm", 1000, 2e4, ("ax", "wz"), NOW)),
            "inputs (ax, wz) are not what they were",
        ),
    ],
)
def test_a_model_in_trouble_is_named(
    operator: FlaskClient, catalog: Catalog, tmp_path: Path, model: ModelReport, said: str
) -> None:
    add_trust(catalog)
    declare(catalog, tmp_path)
    add_device(catalog, "watch-1", {MODEL: model})
    text = concerns(page(operator))
    assert f"watch-1, activity {said}" in text


def test_a_release_that_waits_and_a_candidate_that_failed_are_named(operator: FlaskClient, catalog: Catalog) -> None:
    add_trust(catalog)
    add_release(catalog, 1, 0.97)
    add_release(catalog, 2, 0.81, accepted=False)
    said = concerns(page(operator))
    assert "release activity 1 waits for its owner&#39;s approval Run falaj trust approve activity@1" in said
    assert "candidate 2 of activity was refused: accuracy 0.81" in said


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (RolloutState.REVERSING, "is being taken back: watch-1 gave a verdict"),
        (RolloutState.REVERSED, "was taken back 5 min ago: watch-1 gave a verdict"),
        (RolloutState.APPROVED, "watch-1 gave a verdict"),
    ],
)
def test_a_rollout_in_trouble_is_named(operator: FlaskClient, catalog: Catalog, state: RolloutState, said: str) -> None:
    add_trust(catalog)
    canary = (DeviceId("watch-1"),)
    rollout = Rollout(MODEL, 3, artifact(3), canary, Gates(), state, NOW - 300, None, canary, "watch-1 gave a verdict")
    catalog.fleet.add_rollout(rollout)
    html = page(operator)
    assert f"rollout of activity 3 {said}" in concerns(html)
    assert "watch-1 canary not enrolled" in words(html)
    assert f"<span>{state.value}</span>" in html


def test_a_cut_line_is_one_concern_not_fifty(operator: FlaskClient, catalog: Catalog) -> None:
    add_trust(catalog)
    for place in range(4):
        add_device(catalog, f"watch-{place}", {}, state="offline")
    said = concerns(page(operator))
    assert "1 alarm" in said
    assert "4 devices: watch-0, watch-1, watch-2, watch-3 went offline 1 h ago" in said


def test_a_device_that_never_spoke_is_named(operator: FlaskClient, catalog: Catalog) -> None:
    add_trust(catalog)
    catalog.fleet.put_device(DeviceId("watch-9"), 1, b"c", b"s" * 32, b"k" * 32, NOW - 300)
    html = page(operator)
    assert "watch-9 enrolled 5 min ago, has not reported yet" in concerns(html)
    assert "never seen" in words(html)


def test_a_part_of_the_core_that_fails_is_named_before_the_whole_fleet(operator: FlaskClient, catalog: Catalog) -> None:
    add_trust(catalog)
    for place in range(3):
        add_device(catalog, f"watch-{place}", {}, state="offline")
    catalog.failing.put({"certificates": "they hold until 2027-02-01: put it right"}, NOW - 300)
    said = concerns(page(operator))
    line = "the core, certificates began to fail 5 min ago: they hold until 2027-02-01: put it right"
    assert said.index(line) < said.index("3 devices") and "2 alarms" in said


def test_a_steward_that_is_not_there_is_named_by_who_is(catalog: Catalog, tmp_path: Path) -> None:
    """It writes down what fails, so of itself it cannot."""
    add_trust(catalog)
    catalog.failing.put({"steward": "it ended 5 times", "broker": "no memory"}, NOW)
    there = [False]
    path = tmp_path / "catalog.db"
    client = create_pages(
        lambda: open_catalog(path, KEY, read_only=True), TOKEN, lambda: NOW, steward=lambda: there[0]
    ).test_client()
    client.get("/", query_string={"token": TOKEN})
    said = concerns(page(client))
    assert "2 alarms" in said and "the core, steward fails: it is not there" in said and "5 times" not in said
    there[0] = True
    assert "the core, steward began to fail just now: it ended 5 times" in concerns(page(client))


def test_trust_that_ends_is_named_before_and_after(operator: FlaskClient, catalog: Catalog) -> None:
    year = signing.LIFE.total_seconds()
    add_trust(catalog, NOW - year + 5 * 86_400 + 60)
    said = concerns(page(operator))
    assert "the timestamp has ended: devices go on serving, but install nothing new" in said
    assert "root ends in 5 days" in said
    assert "targets ends in 5 days" in said


# --- live -------------------------------------------------------------------------------------------------------


def test_the_fragment_is_polled_and_silent_while_nothing_changes(operator: FlaskClient, catalog: Catalog) -> None:
    html = page(operator)
    poll = re.search(r'hx-get="([^"]+)" hx-trigger="every 2s" hx-swap="outerHTML"', html)
    assert poll is not None
    assert operator.get(poll[1]).status_code == 204
    catalog.events.add(NOW, "core", "rollout-canary", "something happened")
    fresh = operator.get(poll[1])
    assert fresh.status_code == 200
    assert fresh.text.startswith('<div id="overview"')
    assert "something happened" in fresh.text
    assert "<html" not in fresh.text
    assert operator.get("/fragment/overview").status_code == 200


# --- words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("away", "text"),
    [
        (0, "just now"), (59, "just now"), (60, "1 min ago"), (3599, "59 min ago"), (3600, "1 h ago"),
        (86_399, "23 h ago"), (86_400, "1 day ago"), (172_800, "2 days ago"), (-1, "in a moment"),
        (-172_800, "in 2 days"),
    ],
)  # fmt: skip
def test_times_for_people(away: float, text: str) -> None:
    assert relative(NOW - away, NOW) == text


def test_figures_for_people() -> None:
    assert moment(None, NOW) is None
    assert moment(0.0, NOW) is None
    assert moment(NOW, NOW).iso == "2027-01-15T08:00:00Z"
    assert [duration(s) for s in (-1, 8, 125, 4200)] == ["0 s", "8 s", "2 min 05 s", "1 h 10 min"]
    assert [size(n) for n in (812, 41_300, 4_000_000, 5e9)] == ["812 B", "41.3 kB", "4.0 MB", "5.0 GB"]
    assert share(0.974) == "97.4 %"
    assert (badge("phase", "dreaming").level, badge("phase", "dreaming").word) == ("notice", "dreaming")
