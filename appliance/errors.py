"""Trouble that people can mend: everything the command line shows as one message instead of a traceback."""

from __future__ import annotations


class Trouble(Exception):
    """The message says what is wrong and what to do next. `exit_code`: 1 failed, 3 something is missing here."""

    exit_code = 1
