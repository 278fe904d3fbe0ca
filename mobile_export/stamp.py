"""An exported file holds the SHA-256 of all its other bytes, in its metadata; one of an earlier version has none."""

import hashlib

STAMP = b"keras_compress sha256 "  # 64 digits follow


def stamped(content):
    """The bytes of an exported file with the SHA-256 that stands behind STAMP in it computed anew.

    `content` may be a bytearray, which is changed in place: a file can be as large as half of the memory.
    """
    place, digits = _stamp(content)
    if digits:
        content = content if isinstance(content, bytearray) else bytearray(content)
        content[place : place + 64] = digits
    return bytes(content)


def check_stamp(name, content):
    """Raises ValueError unless the bytes of an exported file are those that were written."""
    place, digits = _stamp(content)
    if digits and content[place : place + 64] != digits:
        raise ValueError(
            f"{name}: an exported file must be as it was written. Received: other bytes, so it was damaged, or "
            "changed by another program. Copy it, or export it, again (`export --overwrite`). If the change is "
            "yours, write what `mobile_export.stamp.stamped` gives for its bytes."
        )


def _stamp(content):
    """(where the SHA-256 of a file stands, what it must be, None if there is none)."""
    place = content.find(STAMP) + len(STAMP)
    if place < len(STAMP):
        return place, None
    view, digest = memoryview(content), hashlib.sha256()
    digest.update(view[:place])
    digest.update(view[place + 64 :])
    return place, digest.hexdigest().encode()
