"""The hands: composes core and edge into processes, owns clocks, sockets, keys on disk and the command line.

It decides nothing: every decision lives in a pure room of `core`, `edge` or `sync`.
"""
