"""Answers of the API server become the right exceptions. The bodies were recorded from a real one (1.35)."""

import json

import pytest

from berth.cluster import errors
from berth.cluster.errors import error_from


def status(code: int, message: str, reason: str | None = None, **details: object) -> bytes:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    if reason is not None:
        body["reason"] = reason
    if details:
        body["details"] = details
    return json.dumps(body).encode()


CASES = {
    "an apply without force over another's fields": (
        409,
        status(
            409,
            'Apply failed with 1 conflict: conflict with "berth": .data.x',
            "Conflict",
            causes=[{"reason": "FieldManagerConflict", "message": 'conflict with "berth"', "field": ".data.x"}],
        ),
        errors.FieldManagerConflictError,
    ),
    "an outdated resourceVersion": (
        409,
        status(
            409,
            'Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes',
            "Conflict",
            name="a",
            kind="configmaps",
        ),
        errors.ResourceVersionConflictError,
    ),
    "a delete of another uid": (
        409,
        status(
            409,
            'Operation cannot be fulfilled on ConfigMap "a": the UID in the precondition (1) does not match the UID',
            "Conflict",
            name="a",
        ),
        errors.ResourceVersionConflictError,
    ),
    "an apply with the uid of an object that is gone": (
        422,
        status(
            422,
            'ConfigMap "b" is invalid: metadata.uid: Invalid value: "1234": field is immutable',
            "Invalid",
            causes=[
                {
                    "reason": "FieldValueInvalid",
                    "message": 'Invalid value: "1234": field is immutable',
                    "field": "metadata.uid",
                }
            ],
        ),
        errors.ResourceVersionConflictError,
    ),
    "a create of what exists": (
        409,
        status(409, 'configmaps "a" already exists', "AlreadyExists", name="a", kind="configmaps"),
        errors.AlreadyExistsError,
    ),
    "an apply of an undeclared field": (
        500,
        status(
            500,
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .dat: field not declared in schema",
        ),
        errors.InvalidObjectError,
    ),
    "a create with an unknown field": (
        400,
        status(400, 'strict decoding error: unknown field "dat"', "BadRequest"),
        errors.InvalidObjectError,
    ),
    "an object that breaks a rule": (422, status(422, "is invalid", "Invalid"), errors.InvalidObjectError),
    "too large a request": (413, b"request entity too large", errors.InvalidObjectError),
    "no such object": (404, status(404, "not found", "NotFound", name="a"), errors.NotFoundError),
    "no such kind": (404, b"404 page not found\n", errors.NotFoundError),
    "no login": (401, status(401, "Unauthorized", "Unauthorized"), errors.UnauthorizedError),
    "no right": (403, status(403, "is forbidden", "Forbidden"), errors.ForbiddenError),
    "an old continue token": (410, status(410, "too old", "Expired"), errors.ExpiredError),
    "too many requests": (429, status(429, "slow down", "TooManyRequests"), errors.UnavailableError),
    "an internal error": (500, status(500, "etcdserver: no leader", "InternalError"), errors.UnavailableError),
    "a gateway in between": (502, b"<html>Bad Gateway</html>", errors.UnavailableError),
    "anything else": (405, b"", errors.ApiError),
}


@pytest.mark.parametrize(("code", "body", "kind"), CASES.values(), ids=CASES.keys())
def test_each_answer_has_its_exception(code: int, body: bytes, kind: type[errors.ApiError]) -> None:
    error = error_from(code, {}, body)
    assert type(error) is kind
    assert error.status == code
    assert str(code) in str(error)


def test_a_field_conflict_names_fields_and_managers() -> None:
    causes = [
        {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl" using apps/v1', "field": ".spec.a"},
        {"reason": "FieldManagerConflict", "message": 'conflict with "hpa"', "field": ".spec.b"},
        {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl" using apps/v1', "field": ".spec.b"},
    ]
    error = error_from(409, {}, status(409, "Apply failed", "Conflict", causes=causes))
    assert isinstance(error, errors.FieldManagerConflictError)
    assert error.fields == (".spec.a", ".spec.b")
    assert error.managers == ("kubectl", "hpa")


def test_a_forbidden_write_says_whether_it_is_quota_or_the_end_of_the_namespace() -> None:
    quota = error_from(403, {}, status(403, 'pods "a" is forbidden: exceeded quota: q', "Forbidden"))
    ending = error_from(
        403, {}, status(403, "is being terminated", "Forbidden", causes=[{"reason": "NamespaceTerminating"}])
    )
    assert isinstance(quota, errors.ForbiddenError)
    assert isinstance(ending, errors.ForbiddenError)
    assert (quota.is_quota, quota.namespace_is_terminating) == (True, False)
    assert (ending.is_quota, ending.namespace_is_terminating) == (False, True)


@pytest.mark.parametrize(
    ("body", "kind_is_missing", "namespace_is_missing"),
    [
        (b"404 page not found\n", True, False),
        (status(404, 'configmaps "a" not found', "NotFound", name="a", kind="configmaps"), False, False),
        (status(404, 'namespaces "a" not found', "NotFound", name="a", kind="namespaces"), False, True),
    ],
)
def test_not_found_says_what_is_missing(body: bytes, kind_is_missing: bool, namespace_is_missing: bool) -> None:
    error = error_from(404, {}, body)
    assert isinstance(error, errors.NotFoundError)
    assert (error.kind_is_missing, error.namespace_is_missing) == (kind_is_missing, namespace_is_missing)


def test_the_server_says_how_long_to_wait() -> None:
    body = status(429, "slow down", "TooManyRequests", retryAfterSeconds=7)
    assert error_from(429, {"Retry-After": "3"}, body).retry_after == 3
    assert error_from(429, {}, body).retry_after == 7
    assert error_from(429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"").retry_after is None


def test_whole_objects_are_cut_from_messages() -> None:
    secret = "hunter2" * 50
    quoted = json.dumps(json.dumps({"data": {"x": secret}}))
    text = f' "" is invalid: patch: Invalid value: {quoted}: strict decoding error: unknown field "dat"'
    error = error_from(422, {}, status(422, text, "Invalid", causes=[{"message": text, "field": "patch"}]))
    assert "hunter2" not in f"{error} {error.causes}"
    assert 'unknown field "dat"' in error.message
    assert len(error_from(500, {}, b"x" * 10_000).message) == 2_000
