"""A worker's brief once it is not needed at hand any more: a long one is told apart by its hash."""

from __future__ import annotations

from orchestra.model.record import WorkerRecord

SHORT = 256  # characters: so little is kept whole: a hash would save next to nothing


def long_brief_sha256(brief: str) -> str | None:
    """None for a short one."""
    if len(brief) <= SHORT:
        return None
    import hashlib  # loads OpenSSL: 3 ms

    return hashlib.sha256(brief.encode("utf-8", "surrogatepass")).hexdigest()


def is_brief_of(record: WorkerRecord, text: str) -> bool:
    if record.brief_sha256 is None:
        return record.entry.brief == text
    return record.brief_sha256 == long_brief_sha256(text)
