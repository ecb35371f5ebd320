"""The words both sides speak, the one adapter that carries them, and the one way to keep a file.

Read in this order: names, topics, messages, manifest, features, windows, codec, chunks, sealing, roles, link.
Everything here is pure (no clock, no chance, no files, no threads) but for `mqtt`, the only paho, and `durable`, whose
files are whole after any cut. What does not belong: anything that only one side needs.
"""
