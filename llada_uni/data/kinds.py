"""What a place of a token record is to the model: given, written by it, or drawn by it."""

from __future__ import annotations

CONTEXT, TEXT, CODE = 0, 1, 2
"""Kinds, stored as int8 beside the ids. CONTEXT: given, never learned. TEXT: the model writes it. CODE: an image code
that the model draws."""
