"""Datasets become networks: a recipe names the shape, the loop fits it.

Read `recipes` (pure), `networks`, `loop`. What does not belong: judging what came out (release does that,
on the file that ships) and anything that knows of files, catalogs or processes.
"""
