"""Takes tokens out of whatever is shown: status, events, logs."""

import re

_REPLACEMENT = "[redacted]"
_SECRETS = (
    # Hugging Face. Shorter words may be ordinary ones, such as hf_transfer.
    re.compile(r"(?<![A-Za-z0-9])hf_(?:oauth_|jwt_)?[A-Za-z0-9]{16,}(?:[._-][A-Za-z0-9_-]{8,})*"),
    re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"),  # OpenAI-style API keys
    re.compile(r"\bnvapi-[A-Za-z0-9_-]{16,}"),  # NVIDIA NGC
    re.compile(r"(?<![A-Za-z0-9])(?:gh[a-z]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[A-Za-z0-9_-]{16,})"),
    re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"),  # AWS access key ids
    re.compile(r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),  # JSON web tokens
)
# After these words a token follows, or an ordinary sentence goes on: a token has digits or is very long.
_AFTER_WORD = re.compile(r"(?i)\b(bearer|basic)(\s+)(?=[^\s]*[0-9+/=]|[^\s]{20})[A-Za-z0-9._~+/=-]{6,}")
_AUTHORIZATION = re.compile(
    r"(?i)\b(authorization[\"']?\s*[=:]\s*[\"']?)(?:(?:bearer|basic|token)\s+)?(?!\[redacted\])[^\s\"',;]{4,}"
)
_IN_URL = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)(?:[^/\s:@]*:[^/\s@]+|[^/\s:@]{16,})@")
_ASSIGNED = re.compile(
    r"(?i)((?:api[-_]?key|access[-_]?key(?:[-_]?id)?|secret(?:[-_]?(?:access)?[-_]?key)?|token|password|passwd|signature"
    r"|\bsig|x-(?:amz|goog)-[a-z-]+)[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;]{4,}"
)


def redact(text: str) -> str:
    """The text with tokens, passwords in URLs and keys in query strings replaced by `[redacted]`."""
    for secret in _SECRETS:
        text = secret.sub(_REPLACEMENT, text)
    text = _AUTHORIZATION.sub(lambda found: found.group(1) + _REPLACEMENT, text)
    text = _AFTER_WORD.sub(rf"\1\2{_REPLACEMENT}", text)
    text = _IN_URL.sub(rf"\1{_REPLACEMENT}@", text)
    return _ASSIGNED.sub(lambda found: found.group(1) + _REPLACEMENT, text)
