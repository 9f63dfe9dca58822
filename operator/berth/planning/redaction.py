"""Takes tokens out of whatever is shown: status, events, logs."""

import re

_REPLACEMENT = "[redacted]"
_SECRETS = (
    re.compile(r"\bhf_[A-Za-z0-9]{8,}"),  # Hugging Face tokens
    re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"),  # OpenAI-style API keys
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),  # AWS access key ids
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),  # JSON web tokens
)
_AFTER_WORD = re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{6,}")
_IN_URL = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s:@]+:[^/\s@]+@")
_ASSIGNED = re.compile(
    r"(?i)((?:api[-_]?key|access[-_]?key|secret(?:[-_]?(?:access)?[-_]?key)?|token|password|passwd|signature|x-amz-[a-z-]+)"
    r"[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;]{4,}"
)


def redact(text: str) -> str:
    """The text with tokens, passwords in URLs and keys in query strings replaced by `[redacted]`."""
    for secret in _SECRETS:
        text = secret.sub(_REPLACEMENT, text)
    text = _AFTER_WORD.sub(rf"\1\2{_REPLACEMENT}", text)
    text = _IN_URL.sub(rf"\1{_REPLACEMENT}@", text)
    return _ASSIGNED.sub(lambda found: found.group(1) + _REPLACEMENT, text)
