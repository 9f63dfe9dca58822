"""Decisions: retries, space, what to fetch, what answers mean, what is said at the end."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.planning.figures_document import from_document, to_document
from berth.planning.model_figures import (
    AttentionLayer,
    ModelFigures,
    Subject,
    TypedWeights,
    Unknown,
    WeightsFormat,
)
from berth.provision import answers
from berth.provision.answers import Origin, body, refusal
from berth.provision.cleaning import cleaner
from berth.provision.errors import PASSING, ProvisionError, Reason
from berth.provision.listing import Listing, RemoteFile
from berth.provision.manifest import (
    FinishedFile,
    Manifest,
    Request,
    StoredFile,
    read_ledger,
    read_manifest,
    read_resolution,
    write_ledger_line,
    write_manifest,
)
from berth.provision.plan import FoundFile, complete, make_plan
from berth.provision.progress import Progress
from berth.provision.retrying import RetryPolicy, retry_after, wait_before_retry
from berth.provision.space import check_space
from berth.provision.termination import LONGEST, Outcome, termination_message

ORIGIN = Origin("hf://org/repo", page="https://hub/org/repo")
WITH_TOKEN = Origin("hf://org/repo", has_token=True)


class TestRetrying:
    def test_waits_grow_and_are_spread(self) -> None:
        policy, failure = RetryPolicy(), ProvisionError(Reason.SERVER_ERROR, "500")
        shortest = [wait_before_retry(failure, n, policy, 0.0) for n in range(1, 8)]
        longest = [wait_before_retry(failure, n, policy, 1.0) for n in range(1, 8)]
        assert shortest == [0.5, 1, 2, 4, 8, 16, 30]
        assert longest == [1, 2, 4, 8, 16, 32, 60]
        assert wait_before_retry(failure, 8, policy, 0.5) is None

    @pytest.mark.parametrize("reason", sorted(set(Reason) - PASSING - {Reason.CHECKSUM_MISMATCH, Reason.SIZE_MISMATCH}))
    def test_what_a_person_has_to_change_is_not_tried_again(self, reason: Reason) -> None:
        assert wait_before_retry(ProvisionError(reason, ""), 1, RetryPolicy(), 0.5) is None

    def test_a_wrong_digest_is_fetched_once_more(self) -> None:
        failure = ProvisionError(Reason.CHECKSUM_MISMATCH, "")
        assert wait_before_retry(failure, 1, RetryPolicy(), 0.5) is not None
        assert wait_before_retry(failure, 2, RetryPolicy(), 0.5) is None

    def test_retry_after_is_obeyed_within_reason(self) -> None:
        policy = RetryPolicy()
        asked = ProvisionError(Reason.TOO_MANY_REQUESTS, "429", retry_after=120)
        assert 120 <= (wait_before_retry(asked, 1, policy, 0.3) or 0) <= 121
        endless = ProvisionError(Reason.TOO_MANY_REQUESTS, "429", retry_after=10**9)
        assert (wait_before_retry(endless, 1, policy, 1.0) or 0) <= policy.longest_asked + 1

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"retry-after": "7"}, 7),
            ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30),
            ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
            ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, None),
            ({"retry-after": "soon", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
            ({"retry-after": "-5"}, None),
            ({"retry-after": "9" * 400}, 999999999),
            ({}, None),
        ],
    )
    def test_a_date_is_compared_with_the_servers_own_clock(
        self, headers: dict[str, str], seconds: float | None
    ) -> None:
        assert retry_after(headers) == seconds

    @given(st.sampled_from(list(Reason)), st.integers(1, 100), st.floats(0, 1), st.none() | st.floats(0, 1e12))
    def test_waits_are_bounded(self, reason: Reason, failures: int, chance: float, asked: float | None) -> None:
        policy = RetryPolicy()
        wait = wait_before_retry(ProvisionError(reason, "", retry_after=asked), failures, policy, chance)
        assert wait is None or 0 <= wait <= policy.longest_asked + policy.first_wait


class TestAnswers:
    @pytest.mark.parametrize(
        ("status", "headers", "origin", "reason"),
        [
            (401, {}, ORIGIN, Reason.TOKEN_MISSING),
            (401, {"x-error-code": "RepoNotFound"}, ORIGIN, Reason.TOKEN_MISSING),
            (401, {"x-error-code": "GatedRepo"}, ORIGIN, Reason.GATED),
            (403, {"x-error-code": "GatedRepo"}, WITH_TOKEN, Reason.GATED),
            (401, {}, WITH_TOKEN, Reason.TOKEN_REFUSED),
            (403, {}, WITH_TOKEN, Reason.TOKEN_REFUSED),
            (404, {}, ORIGIN, Reason.NOT_FOUND),
            (404, {"x-error-code": "RevisionNotFound"}, ORIGIN, Reason.REVISION_NOT_FOUND),
            (410, {}, WITH_TOKEN, Reason.NOT_FOUND),
            (400, {}, ORIGIN, Reason.REQUEST_REFUSED),
            (429, {}, ORIGIN, Reason.TOO_MANY_REQUESTS),
            (500, {}, ORIGIN, Reason.SERVER_ERROR),
            (503, {}, ORIGIN, Reason.SERVER_ERROR),
        ],
    )
    def test_a_status_is_one_failure(
        self, status: int, headers: dict[str, str], origin: Origin, reason: Reason
    ) -> None:
        failure = refusal(status, headers, origin, "https://hub/x?Signature=abc")
        assert failure is not None
        assert failure.reason is reason
        assert "abc" not in failure.message
        if status in (401, 403):
            assert "source.secretRef (key `token`)" in failure.message

    def test_good_answers_are_none(self) -> None:
        assert refusal(200, {}, ORIGIN, "https://hub/x") is None
        assert refusal(206, {}, ORIGIN, "https://hub/x") is None

    @pytest.mark.parametrize(
        ("status", "headers", "asked", "reason"),
        [
            (200, {"content-type": "text/html; charset=utf-8"}, None, Reason.UNEXPECTED_CONTENT),
            (200, {"content-encoding": "gzip"}, None, Reason.UNEXPECTED_CONTENT),
            (200, {"content-length": "99"}, None, Reason.SIZE_MISMATCH),
            (206, {"content-range": "bytes 0-9/99"}, (0, 9), Reason.SIZE_MISMATCH),
            (206, {"content-range": "bytes 5-9/100"}, (0, 9), Reason.UNEXPECTED_CONTENT),
            (206, {"content-range": "bytes 0-99/100"}, (0, 9), Reason.UNEXPECTED_CONTENT),
            (206, {"content-range": "bytes 0-9/100", "content-length": "11"}, (0, 9), Reason.UNEXPECTED_CONTENT),
            (206, {}, (0, 9), Reason.UNEXPECTED_CONTENT),
            (206, {"content-range": "bytes 0-9/100"}, None, Reason.UNEXPECTED_CONTENT),
        ],
    )
    def test_refuses_a_body_that_is_not_the_part(
        self, status: int, headers: dict[str, str], asked: tuple[int, int] | None, reason: Reason
    ) -> None:
        with pytest.raises(ProvisionError) as refused:
            body(status, headers, "weights.bin", asked, 100)
        assert refused.value.reason is reason

    def test_a_web_page_may_be_a_file_of_its_own(self) -> None:
        assert body(200, {"content-type": "text/html", "content-length": "5"}, "index.html", None, 5).length == 5

    def test_a_weak_etag_says_nothing_about_bytes(self) -> None:
        assert answers.strong_validator({"etag": 'W/"x"'}) is None
        assert answers.strong_validator({"etag": '"x"'}) == '"x"'


class TestSpace:
    def test_the_limit_comes_first(self) -> None:
        with pytest.raises(ProvisionError) as refused:
            check_space(11 << 30, 11 << 30, 10 << 30, 0)
        assert refused.value.reason is Reason.LIMIT_EXCEEDED
        assert "11.0 GiB" in refused.value.message

    def test_only_what_is_missing_has_to_fit(self) -> None:
        check_space(100 << 30, 1 << 20, None, 3 << 20)
        check_space(100 << 30, 0, None, 0)
        with pytest.raises(ProvisionError) as refused:
            check_space(100 << 30, 3 << 20, None, 3 << 20)
        assert refused.value.reason is Reason.NO_SPACE


def _file(path: str, size: int | None = 10, sha256: str | None = "a" * 64) -> RemoteFile:
    return RemoteFile(path, f"https://h/{path}", size, sha256=sha256)


def _line(file: RemoteFile, inode: int = 1) -> FinishedFile:
    return FinishedFile(file.path, file.size or 0, file.sha256 or "", file.identity, True, 5, inode)


class TestPlan:
    there = FoundFile(10, 5, 1)

    def test_fetches_what_is_not_there(self) -> None:
        plan = make_plan(Listing((_file("a"),)), {}, {}, None)
        assert [file.path for file in plan.fetch] == ["a"]
        assert plan.bytes_total == 10

    def test_keeps_what_the_ledger_knows(self) -> None:
        plan = make_plan(Listing((_file("a"),)), {"a": self.there}, {"a": _line(_file("a"))}, None)
        assert [file.path for file in plan.keep] == ["a"]

    @pytest.mark.parametrize("line", [_line(_file("a"), inode=2), _line(_file("a", sha256="b" * 64))])
    def test_reads_what_the_ledger_does_not_know_for_sure(self, line: FinishedFile) -> None:
        plan = make_plan(Listing((_file("a"),)), {"a": self.there}, {"a": line}, None)
        assert [file.path for file in plan.rehash] == ["a"]

    def test_fetches_anew_what_nobody_can_compare(self) -> None:
        plan = make_plan(Listing((_file("a", sha256=None),)), {"a": self.there}, {}, None)
        assert [file.path for file in plan.fetch] == ["a"]

    def test_removes_partials_of_files_that_are_not_fetched(self) -> None:
        names = ["a", "a.partial", "b.partial", "b.partial.state", "old/c.partial", "unrelated"]
        found = dict.fromkeys(names, self.there)
        plan = make_plan(Listing((_file("a"), _file("b"))), found, {"a": _line(_file("a"))}, None)
        assert plan.stale == ("a.partial", "old/c.partial")

    def test_files_of_an_older_manifest_go_last(self) -> None:
        stored = (StoredFile("a", 10, "a" * 64, True), StoredFile("gone", 10, "c" * 64, True))
        manifest = Manifest("k", "hf://o/r", None, None, "", stored)
        plan = make_plan(
            Listing((_file("a"),)), {"a": self.there, "gone": self.there, "mine": self.there}, {}, manifest
        )
        assert [file.path for file in plan.keep] == ["a"]
        assert plan.obsolete == ("gone",)

    def test_a_volume_is_complete_only_with_every_file(self) -> None:
        request = Request("hf://o/r")
        manifest = Manifest(request.key, "", None, None, "", (StoredFile("a", 10, "", True),))
        assert complete(manifest, request, {"a": self.there})
        assert not complete(manifest, request, {"a": FoundFile(9, 5, 1)})
        assert not complete(manifest, request, {})
        assert not complete(manifest, Request("hf://o/r", ("*.gguf",)), {"a": self.there})
        assert not complete(None, request, {"a": self.there})


class TestManifest:
    def test_is_read_as_it_was_written(self) -> None:
        manifest = Manifest("k", "hf://o/r", "c" * 40, "mit", "2026-01-01T00:00:00Z", (StoredFile("ü", 1, "d", True),))
        assert read_manifest(write_manifest(manifest)) == manifest

    @given(st.binary(max_size=200))
    def test_nonsense_is_no_manifest(self, content: bytes) -> None:
        assert read_manifest(content) is None
        assert read_resolution(content) is None
        read_ledger(content)

    def test_a_line_that_was_cut_off_is_left_out(self) -> None:
        line = write_ledger_line(_line(_file("a")))
        assert list(read_ledger(line + line.replace(b'"a"', b'"b"')[:-20])) == ["a"]


def figures(runs: int = 3, unknowns: int = 0, why: str = "why") -> ModelFigures:
    return ModelFigures(
        WeightsFormat.GGUF,
        "llama",
        (TypedWeights("F32", 1, 4),),
        layers=7,
        attention=tuple(AttentionLayer(at % 2 + 1, 64, 64) for at in range(runs)),
        unknowns=(Unknown(Subject.CONTEXT, why),) * unknowns,
    )


class TestTermination:
    @given(st.text(), st.text(), st.integers(0, 2**63))
    def test_fits_and_is_json_whatever_is_said(self, message: str, uri: str, count: int) -> None:
        outcome = Outcome(uri * 50, Reason.NO_SPACE, message * 200, bytes_total=count, licence=message * 50)
        content = termination_message(outcome)
        assert len(content) <= LONGEST
        assert json.loads(content)["bytesTotal"] == count

    def test_says_all_there_is_to_say(self) -> None:
        document = self._document(figures(unknowns=1), "too little room", retries={"ServerError": 3}, volume_free=7)
        assert document["figures"] == to_document(figures(unknowns=1))
        assert (document["retries"], document["volumeFree"], document["filesDone"]) == ({"ServerError": 3}, 7, 0)
        assert document["file"] is None

    def test_what_is_unknown_is_shortened_first(self) -> None:
        document = self._document(figures(unknowns=4, why="because " * 100), "x" * 500)
        assert [one["what"] for one in document["figures"]["unknowns"]] == ["context"] * 4
        assert all(len(one["why"]) <= 60 for one in document["figures"]["unknowns"])
        assert len(document["figures"]["attention"]) == 3

    def test_layers_that_are_left_out_become_unknown(self) -> None:
        """Not zero, and not a guess: whoever reads it must not take them for known."""
        document = self._document(figures(runs=200), "x" * 500)
        assert "attention" not in document["figures"]
        assert document["figures"]["unknowns"][-1]["what"] == "cache"
        assert document["figures"]["layers"] == 7

    def test_a_message_is_worth_more_than_figures(self) -> None:
        document = self._document(figures(runs=200, unknowns=16), "x" * 2900)
        assert (document["figures"], document["message"], document["reason"]) == (None, "x" * 2900, "NoSpace")

    @given(st.integers(0, 1024), st.integers(0, 16), st.text(max_size=400), st.text(max_size=50))
    def test_fits_whatever_a_model_says(self, runs: int, unknowns: int, why: str, message: str) -> None:
        outcome = Outcome(
            "hf://o/r", Reason.NO_SPACE, message * 80, figures=figures(runs, unknowns, why), file=message * 9
        )
        content = termination_message(outcome)
        assert len(content) <= LONGEST
        document = json.loads(content)
        assert document["figures"] is None or from_document(document["figures"]) is not None

    def _document(self, model: ModelFigures, message: str, **more: Any) -> dict[str, Any]:
        content = termination_message(Outcome("hf://o/r", Reason.NO_SPACE, message, figures=model, **more))
        assert len(content) <= LONGEST
        document: dict[str, Any] = json.loads(content)
        return document


class TestProgress:
    def test_has_the_names_of_the_status(self) -> None:
        from berth.api.model_status import Provisioning

        document = Progress("hf://o/r", str).document()
        shown = {field.alias or name for name, field in Provisioning.model_fields.items()}
        assert set(document) == shown - {"cache", "progress"}, "which Berth itself knows"
        assert Provisioning.model_validate(document).attempt == 1

    def test_speed_is_that_of_late(self) -> None:
        now = 0.0
        progress = Progress("hf://o/r", str, clock=lambda: now)
        progress.plan(1000, 0, 1, 0)
        for second in range(60):
            now = float(second)
            progress.arrived(1)
        for second in range(60, 90):
            now = float(second)
            progress.arrived(10)
        document = progress.document()
        assert document["bytesPerSecond"] == 10
        assert document["etaSeconds"] == 64
        assert document["percent"] == 36


def test_a_held_token_is_taken_out_letter_by_letter() -> None:
    clean = cleaner(["opaque"])
    assert "opaque" not in clean("the server said: opaque")
    assert "hf_" not in clean("hf_" + "a" * 34)
