"""A model and a board before any core: `falaj edge bench`, `falaj edge listen` and `falaj edge try`.

`measuring` says what a model takes here; `listening`, `overheard`, `rhythm` and `suggesting` what sensors publish and
which binding reads it; `planning`, `lines`, `broker` and `node` serve a model nobody has signed, while a person looks.
"""
