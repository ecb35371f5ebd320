"""Rows come in: a source yields units, a contract sorts good rows from bad, landing writes the good ones.

Read `interface` first (what a source is), then `contract`, `files`, `landing`; `spool` and `samples` are the end of
the road from the devices. What does not belong: the
catalog (landing returns facts, the steward commits them) and anything that interprets rows beyond their
contract.
"""
