"""The demonstration: real recordings become a signed release that six devices prove and serve, in two acts.

`recordings` reads the pinned data package and writes plain CSV files; `fleet` runs the core and the agents as the
field would; `field` is the world outside: watches that send, a client that asks. `story` is act one, step by step. Act
two stands on `stage`, and `people` wear the watches: they move to the other wrist (`drift`), the core learns from it
(`learning`), a bad release is stopped (`bad`). `counting` counts all the while, `summary` prints the table. Nothing
here is used by the product.
"""
