"""The words both sides speak, and the one adapter that carries them.

Read in this order: names, topics, messages, manifest, features, windows, codec, chunks, sealing, roles, link.
Everything here is pure (no clock, no chance, no files, no threads) but for `mqtt`, the only paho.
What does not belong: anything that only one side needs.
"""
