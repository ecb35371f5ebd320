"""The demonstration: real recordings become a signed release that six devices prove and serve.

`recordings` reads the pinned data package and writes plain CSV files; `fleet` runs the core and the agents as the
field would; `field` is the world outside: watches that send, a client that asks; `story` tells it step by step and
counts; `summary` prints the table. Nothing here is used by the product.
"""
