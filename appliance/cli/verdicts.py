"""Evidence and verdicts as lines for people: candidates, rollouts, why cards, what is learned next. Pure; UTC."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from appliance.moments import utc

Document = Mapping[str, Any]

NO_CANDIDATE = "no model was trained yet: `falaj train MODEL`"
NO_ROLLOUT = "no release is on its way: `falaj trust approve MODEL@NUMBER` begins a rollout"
NO_WHY = "no device has given a verdict against a release"


def candidate_lines(
    rows: Sequence[Document], staged: Mapping[int, int], by_core: Collection[tuple[str, int]] = ()
) -> list[str]:
    """A line for each candidate, one more for each gate that refused it, and how to override them, or that somebody
    did. `staged`: candidate -> number of its release; `by_core`: releases (model, number) that no person signed."""
    lines = []
    for row in rows:
        word = "accepted" if row["accepted"] else "refused"
        lines.append(f"{row['id']:>4}  {row['model']}  {word:<8}  {utc(row['ts'])}{_figures(row['scorecard'])}")
        lines += [f"      {text}" for text in _calibration(row["scorecard"])]
        if row["accepted"] and (row["model"], staged.get(row["id"], 0)) in by_core:
            lines.append(f"      signed automatically, as release {row['model']}@{staged[row['id']]}")
        if not row["accepted"]:
            failed = [verdict for verdict in row["verdicts"] if verdict["outcome"] == "fail"]
            lines += [f"      {verdict['gate']}: {verdict['text']}" for verdict in failed]
            if row["id"] in staged:
                lines.append(f"      OVERRIDDEN: staged all the same, as release {row['model']}@{staged[row['id']]}")
            else:
                lines.append(f"      stage it all the same: `falaj candidate override {row['id']} --reason TEXT`")
    return lines


def rollout_lines(row: Document) -> list[str]:
    """A rollout: its stage, who forced it, and the evidence with both thresholds."""
    reason = f": {row['reason']}" if row["reason"] else ""
    lines = [f"{row['model']}@{row['number']}  {row['state']} since {utc(row['since'])}{reason}"]
    lines.append(f"  canary {', '.join(row['canary'])}; assigned {', '.join(row['assigned']) or 'to nobody yet'}")
    if row["forced"]:
        lines.append(f"  FORCED past the shadow by {row['forced']}")
    lines += [f"  {line}" for line in evidence_lines(row)]
    return lines


def evidence_lines(row: Document) -> list[str]:
    """What the pairs of a rollout say, in words."""
    evidence, gates = row["evidence"], row["gates"]
    if row.get("comparison") is not None:
        return _split_lines(row)
    if evidence is None:
        if row["forced"]:
            return [f"judged by {gates['evidence']} on each device, by itself: see `falaj why {row['model']}`"]
        way = "has no release to be compared with" if row["previous"] is None else "counts no pairs"
        return [f"judged by {gates['evidence']}: it {way}"]
    blocks = evidence["plus"] + evidence["zero"] + evidence["minus"]
    said = {"harm": "HARM, it does worse", "safe": "SAFE", "hold": "undecided"}[evidence["decision"]]
    return [
        f"evidence by {gates['evidence']}, {'when the shadow ended' if evidence['decided'] else 'so far'}: {said}",
        f"  worse in {evidence['plus']}, equal in {evidence['zero']}, better in {evidence['minus']} of {blocks} blocks"
        f" of {gates['block']} input windows",
        f"  harm  {evidence['log_harm']:6.2f}, decides at {evidence['harm_at']:.2f}",
        f"  safe  {evidence['log_safe']:6.2f}, decides at {evidence['safe_at']:.2f}{_needed(evidence)}",
        *(f"  {device}: {_trial(trial)}" for device, trial in sorted(evidence["devices"].items())),
    ]


def _split_lines(row: Document) -> list[str]:
    """What the keys of an A/B say: both rates, the interval, and how far each word is."""
    found, per_key = row["comparison"], row["gates"]["per_key"]
    outcomes = "1 outcome" if per_key == 1 else f"{per_key} outcomes"
    said = {"worse": "WORSE", "better": "BETTER", "mismatch": "MISMATCH, nothing is concluded", "hold": "undecided"}
    (old_keys, new_keys), (old_words, new_words) = found["keys"], found["words"]
    lines = [
        f"A/B with {row['split']['share'] / 100:g} % of entities and keys, {outcomes} to a key: "
        f"{said[found['decision']]}",
        f"  {found['text']}",
        f"  keys answered: {new_keys} by release {row['number']}, {old_keys} by release {row['previous']}; "
        f"known: {new_words} and {old_words}",
    ]
    for word in ("better", "worse", "mismatch"):
        lines.append(f"  {word:<8} {found[f'log_{word}']:6.2f}, decides at {found[f'{word}_at']:.2f}")
    if row["days"] and row["state"] == "split":
        lines.append(f"  paused {row['days']:g} days after it began, if nothing is decided")
    return lines


def why_lines(row: Document) -> list[str]:
    """A why card: criterion, both releases in figures, the evidence, who answers now."""
    old = row["old"]
    lines = [f"{row['device']} refused {row['model']}@{row['new']['number']} in {row['phase']}, {utc(row['ts'])}"]
    lines.append(f"  {row['criterion']}: {row['text']}")
    lines.append(f"  new: {_side(row['new'])}")
    lines.append(f"  old: {_side(old)}" if old else "  old: none")
    for kind in ("harm", "safe"):
        if row[f"log_{kind}"] is not None:
            lines.append(f"  {kind}  {row[f'log_{kind}']:6.2f}, decides at {row[f'{kind}_at']:.2f}")
    lines.append(f"  returned to release {old['number']}" if old else "  nobody answers there now")
    return lines


def learning_lines(retraining: Mapping[str, Document], devices: Sequence[Document]) -> list[str]:
    """A line for each model: who drifted since when, and what the core learns next, or why it does not."""
    drifted = dict(_drifted(devices))
    lines = []
    for model in sorted({*retraining, *drifted}):
        alarmed = ", ".join(f"{device} since {utc(since)}" for since, device in drifted.get(model, ()))
        told = [f"drifted: {alarmed}"] if alarmed else []
        told += [retraining[model]["reason"]] if model in retraining and retraining[model]["reason"] else []
        lines += [f"{model}: {'; '.join(told)}"] if told else []
    return lines


def _drifted(devices: Sequence[Document]) -> Iterator[tuple[str, list[tuple[float, str]]]]:
    models = {name for row in devices for name in (row["report"] or {"models": {}})["models"]}
    for name in models:
        alarmed = []
        for row in devices:
            drift = (row["report"] or {"models": {}})["models"].get(name, {}).get("drift")
            if drift and drift["since"] is not None:
                alarmed.append((drift["since"], row["device"]))
        if alarmed:
            yield name, sorted(alarmed)


def _figures(scorecard: Document) -> str:
    chosen = [score for score in scorecard["scores"] if score["precision"] == scorecard["chosen"]]
    return "".join(f"  accuracy {score['accuracy']:.3f} of {scorecard['rows']} rows" for score in chosen)


def _calibration(scorecard: Document) -> list[str]:
    """Whether its probabilities were made honest, and how honest they are; nothing of one from before there was any."""
    found = scorecard.get("calibration")
    if found is None:
        return []
    chosen = next(score for score in scorecard["scores"] if score["precision"] == scorecard["chosen"])
    before = f"{chosen['ece_before']:.3f} before, " if found["temperature"] != 1 else ""
    return [f"{found['reason']}; calibration error {before}{chosen['ece']:.3f} on the gate rows"]


def _needed(evidence: Document) -> str:
    if evidence["decision"] != "hold":
        return ""
    needed = evidence["needed"]
    return f", at best {needed} more blocks" if needed is not None else ", which no number of equal blocks reaches"


def _trial(trial: Document) -> str:
    parts = [f"{trial['pairs']} pairs, the same answer in {trial['agreed']}"]
    if trial["labels"]:
        new, old = (100 * trial[key] / trial["labels"] for key in ("right", "right_before"))
        parts.append(f"right in {new:.1f} % of {trial['labels']} labels, before {old:.1f} %")
    if trial["waiting"]:
        parts.append(f"{trial['waiting']} wait for a label")
    return "; ".join(parts)


def _side(side: Document) -> str:
    accuracy = f"right in {100 * side['accuracy']:.1f} %, " if side["accuracy"] is not None else ""
    pace = f", p99 {side['p99_ms']:.2g} ms" if side["p99_ms"] else ""
    return f"release {side['number']}, {accuracy}{side['answers']} answers, {side['errors']} errors{pace}"
