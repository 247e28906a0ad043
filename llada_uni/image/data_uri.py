"""Images written as text: base64 as programs really send it, alone or in a data URI. -> bytes.

Nothing here imports torch or decodes an image.
"""

from __future__ import annotations

import base64
import binascii
import re

from llada_uni.errors import UserError

# Type and parameters say nothing: the content is looked at.
_HEAD = re.compile(r"data:[^,]{0,2000};[ \t]*base64[ \t]*,", re.IGNORECASE)
_BLANKS = re.compile(rb"[ \t\r\n\f\v]+|%0[dDaA]|%20")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def is_data_uri(text: str) -> bool:
    """Whether a string is a data URI (and no path)."""
    return text[:5].lower() == "data:"


def read_data_uri(uri: str) -> bytes:
    """The bytes of a `data:...;base64,...` URI, whatever type and parameters it names. UserError for any other form."""
    head = _HEAD.match(uri)
    if head is None:
        raise UserError("a picture's data URI has the form data:image/png;base64,...")
    return read_base64(uri[head.end() :])


def read_base64(text: str) -> bytes:
    """The bytes that base64 says: in either alphabet (RFC 4648, sections 4 and 5), with or without line breaks and padding.

    UserError for anything else, and for no bytes at all.
    """
    try:
        plain = _BLANKS.sub(b"", text.encode("ascii")).replace(b"%2B", b"+").replace(b"%2F", b"/").replace(b"%3D", b"=")
        plain = plain.translate(_URL_SAFE).rstrip(b"=")
        data = base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError("the data URI of a picture is not valid base64") from error
    if not data:
        raise UserError("the data URI of a picture is empty")
    return data
