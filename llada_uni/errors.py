"""The one exception for mistakes a user can make: the message is a single line that says what was wrong and what is allowed."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input from a person: unknown file, impossible size, broken weights. The command line prints it and exits with 2."""
