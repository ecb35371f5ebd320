"""The tables. A schema change raises VERSION and adds a step to `MIGRATIONS`, never edits an old one."""

from __future__ import annotations

VERSION = 16

TABLES = """
CREATE TABLE project (id INTEGER PRIMARY KEY, ts REAL NOT NULL, actor TEXT NOT NULL, folder TEXT NOT NULL,
    document BLOB NOT NULL);
CREATE TABLE job (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, actor TEXT NOT NULL,
    state TEXT NOT NULL, stage TEXT NOT NULL DEFAULT '', done REAL NOT NULL DEFAULT 0, created REAL NOT NULL,
    finished REAL, result TEXT NOT NULL DEFAULT '{}', error TEXT NOT NULL DEFAULT '', hint TEXT NOT NULL DEFAULT '');

CREATE TABLE lake_file (source TEXT NOT NULL, name TEXT NOT NULL, rows INTEGER NOT NULL, content TEXT NOT NULL,
    job INTEGER NOT NULL, PRIMARY KEY (source, name));
CREATE TABLE position (source TEXT NOT NULL, origin TEXT NOT NULL, mark TEXT NOT NULL,
    PRIMARY KEY (source, origin));
CREATE TABLE quarantine (id INTEGER PRIMARY KEY, source TEXT NOT NULL, job INTEGER NOT NULL, origin TEXT NOT NULL,
    row INTEGER NOT NULL, reason TEXT NOT NULL, text TEXT NOT NULL);

CREATE TABLE candidate (id INTEGER PRIMARY KEY, model TEXT NOT NULL, job INTEGER NOT NULL, ts REAL NOT NULL,
    accepted INTEGER NOT NULL, document BLOB NOT NULL);
CREATE TABLE release (model TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL, state TEXT NOT NULL,
    ts REAL NOT NULL, candidate INTEGER NOT NULL, manifest BLOB NOT NULL, PRIMARY KEY (model, number));
CREATE TABLE blob (sealed TEXT PRIMARY KEY, plain TEXT NOT NULL, model TEXT NOT NULL, number INTEGER NOT NULL,
    chunk INTEGER NOT NULL, length INTEGER NOT NULL, key BLOB NOT NULL);
CREATE TABLE trust_file (name TEXT PRIMARY KEY, content BLOB NOT NULL);

CREATE TABLE token (device TEXT PRIMARY KEY, secret TEXT NOT NULL, expires REAL NOT NULL, used REAL,
    attempts INTEGER NOT NULL DEFAULT 0);
CREATE TABLE device (device TEXT PRIMARY KEY, epoch INTEGER NOT NULL, enrolled REAL NOT NULL,
    certificate BLOB NOT NULL, signing_key BLOB NOT NULL, sealing_key BLOB NOT NULL, state TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'unknown', status_ts REAL NOT NULL DEFAULT 0,
    report_epoch INTEGER NOT NULL DEFAULT 0, report_seq INTEGER NOT NULL DEFAULT 0,
    report BLOB, report_envelope BLOB, seen REAL NOT NULL DEFAULT 0);
CREATE TABLE wanted (device TEXT NOT NULL, model TEXT NOT NULL, number INTEGER NOT NULL, mode TEXT NOT NULL,
    gates BLOB NOT NULL, retry INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (device, model));
CREATE TABLE assignment (device TEXT PRIMARY KEY, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    expires REAL NOT NULL, envelope BLOB NOT NULL);
CREATE TABLE rollout (id INTEGER PRIMARY KEY, model TEXT NOT NULL, number INTEGER NOT NULL, document BLOB NOT NULL,
    active INTEGER NOT NULL);
CREATE TABLE received (device TEXT NOT NULL, epoch INTEGER NOT NULL, kind TEXT NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (device, epoch, kind));

CREATE TABLE event (id INTEGER PRIMARY KEY, ts REAL NOT NULL, source TEXT NOT NULL, code TEXT NOT NULL,
    severity TEXT NOT NULL, model TEXT, text TEXT NOT NULL, facts TEXT NOT NULL);
"""

# A report names the quarantined manifests with their retry generation since version 3: older ones cannot be read, and
# devices send theirs again.
SECOND_ACT = """
CREATE TABLE sample_batch (device TEXT NOT NULL, epoch INTEGER NOT NULL, n INTEGER NOT NULL, model TEXT NOT NULL,
    bytes INTEGER NOT NULL, received REAL NOT NULL, landed INTEGER, PRIMARY KEY (device, epoch, n));
CREATE INDEX sample_batch_waiting ON sample_batch (model, received) WHERE landed IS NULL;
CREATE TABLE training_samples (job INTEGER PRIMARY KEY, labelled INTEGER NOT NULL);
CREATE TABLE why (id INTEGER PRIMARY KEY, ts REAL NOT NULL, device TEXT NOT NULL, model TEXT NOT NULL,
    number INTEGER NOT NULL, document BLOB NOT NULL);
CREATE TABLE decision (rollout INTEGER NOT NULL, ts REAL NOT NULL, device TEXT NOT NULL, envelope BLOB NOT NULL);
UPDATE device SET report = NULL;
"""

# A batch that has landed is one more in a count, not a row for ever; and what a training used was of one source.
TALLIES = """
CREATE TABLE sample_tally (model TEXT NOT NULL, device TEXT NOT NULL, batches INTEGER NOT NULL, bytes INTEGER NOT NULL,
    waiting INTEGER NOT NULL, waiting_bytes INTEGER NOT NULL, room INTEGER NOT NULL, PRIMARY KEY (model, device));
INSERT INTO sample_tally SELECT model, device, count(*), sum(bytes), sum(landed IS NULL),
    sum(CASE WHEN landed IS NULL THEN bytes ELSE 0 END),
    sum(CASE WHEN landed IS NULL THEN max(bytes, 4096) ELSE 0 END) FROM sample_batch GROUP BY model, device;
DELETE FROM sample_batch WHERE landed IS NOT NULL;
ALTER TABLE training_samples ADD COLUMN source TEXT NOT NULL DEFAULT '';
"""

IDENTITIES = """
CREATE TABLE box (serial TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, site TEXT NOT NULL, labels TEXT NOT NULL,
    imported REAL NOT NULL);
CREATE TABLE site_token (secret TEXT PRIMARY KEY, site TEXT NOT NULL, expires REAL NOT NULL, uses INTEGER NOT NULL,
    used INTEGER NOT NULL, approve INTEGER NOT NULL);
CREATE TABLE waiting (device TEXT PRIMARY KEY, serial TEXT NOT NULL, site TEXT NOT NULL, since REAL NOT NULL,
    signing_key BLOB NOT NULL, sealing_key BLOB NOT NULL);
CREATE TABLE certificate (serial TEXT PRIMARY KEY, device TEXT NOT NULL, epoch INTEGER NOT NULL, expires REAL NOT NULL,
    revoked REAL, reason TEXT NOT NULL);
CREATE INDEX certificate_device ON certificate (device);
CREATE TABLE boot (id INTEGER PRIMARY KEY, device TEXT NOT NULL, epoch INTEGER NOT NULL, boot TEXT NOT NULL,
    UNIQUE (device, epoch, boot));
"""

PROPOSALS = "CREATE TABLE proposal (subject TEXT PRIMARY KEY, document BLOB NOT NULL)"

# Since which of its assignments a device is told what it is told now: those signed anew without a change say no more.
TOLD = """
CREATE TABLE told (device TEXT PRIMARY KEY, epoch INTEGER NOT NULL, seq INTEGER NOT NULL);
INSERT INTO told SELECT device, epoch, seq FROM assignment;
"""

PIECES = """
CREATE TABLE piece (name TEXT NOT NULL, version INTEGER NOT NULL, plain TEXT NOT NULL, valid_from REAL NOT NULL,
    as_of REAL NOT NULL, blob BLOB NOT NULL, PRIMARY KEY (name, version));
"""

# Until now everything was on the broker; what nobody needs is cleared.
RETAINED = """
CREATE TABLE retained (sealed TEXT PRIMARY KEY, cleared REAL);
INSERT INTO retained SELECT DISTINCT sealed, NULL FROM blob;
"""

QUESTIONS = """
CREATE TABLE question (seq INTEGER PRIMARY KEY, device TEXT NOT NULL, document BLOB NOT NULL);
CREATE TABLE answer_part (seq INTEGER NOT NULL, part INTEGER NOT NULL, content BLOB NOT NULL, PRIMARY KEY (seq, part));
"""

# Files of the lake that another one stands for; `job` is the newest there was then, which may still read them.
OUTDATED = """
CREATE TABLE lake_outdated (source TEXT NOT NULL, name TEXT NOT NULL, job INTEGER NOT NULL,
    PRIMARY KEY (source, name));
"""

# Parts of the core that its supervisor cannot keep up now.
FAILING = "CREATE TABLE failing (part TEXT PRIMARY KEY, since REAL NOT NULL, text TEXT NOT NULL)"

# What devices count of their releases.
PERFORMANCE = """
CREATE TABLE performance (device TEXT NOT NULL, model TEXT NOT NULL, number INTEGER NOT NULL, received REAL NOT NULL,
    since REAL NOT NULL, newest BLOB NOT NULL, total BLOB NOT NULL, PRIMARY KEY (device, model, number));
CREATE TABLE performance_interval (id INTEGER PRIMARY KEY, device TEXT NOT NULL, model TEXT NOT NULL,
    number INTEGER NOT NULL, ts REAL NOT NULL, span REAL NOT NULL, tally BLOB NOT NULL);
CREATE INDEX performance_interval_device ON performance_interval (device, ts);
CREATE INDEX performance_interval_ts ON performance_interval (ts);
"""

# What devices served, made again by the core.
SKEW = """
CREATE TABLE skew (device TEXT NOT NULL, model TEXT NOT NULL, number INTEGER NOT NULL, predictions INTEGER NOT NULL,
    cells INTEGER NOT NULL, mismatching INTEGER NOT NULL, unchecked INTEGER NOT NULL, example TEXT NOT NULL,
    since REAL NOT NULL, newest REAL NOT NULL, PRIMARY KEY (device, model, number));
"""

MIGRATIONS: dict[int, str] = {
    0: TABLES,
    1: "CREATE INDEX event_source ON event (source, id)",
    2: SECOND_ACT,
    3: TALLIES,
    4: IDENTITIES,
    5: PROPOSALS,
    6: TOLD,
    7: PIECES,
    8: RETAINED,
    9: QUESTIONS,
    10: "ALTER TABLE wanted ADD COLUMN split BLOB",  # arms and seed; NULL: none
    11: OUTDATED,
    12: FAILING,
    13: PERFORMANCE,
    14: SKEW,
    15: "ALTER TABLE received ADD COLUMN boot TEXT NOT NULL DEFAULT ''",  # which start of the agent wrote number n
}  # from version -> statements that lead to the next
