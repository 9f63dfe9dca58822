"""Tokens never survive; what people have to read does."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.planning.redaction import redact

LETTERS = string.ascii_letters + string.digits
surroundings = st.text(alphabet=" \n\t:;,.()[]{}\"'=&|<>", max_size=5)


def word(least: int, most: int = 40, alphabet: str = LETTERS) -> st.SearchStrategy[str]:
    return st.text(alphabet=alphabet, min_size=least, max_size=most)


@given(surroundings, word(30), surroundings)
def test_hugging_face_tokens_never_survive(before: str, secret: str, after: str) -> None:
    assert secret not in redact(f"{before}hf_{secret}{after}")


@given(
    st.sampled_from(
        ["sk-", "sk-proj-", "sk-ant-api03-", "nvapi-", "ghp_", "gho_", "github_pat_", "glpat-", "hf_oauth_"]
    ),
    word(24),
)
def test_keys_with_a_known_beginning_never_survive(beginning: str, secret: str) -> None:
    assert secret not in redact(f"the key {beginning}{secret} was refused")


@given(st.sampled_from(["Bearer", "bearer", "Basic", "BEARER"]), word(8), st.integers(0, 9))
def test_what_follows_bearer_never_survives(scheme: str, secret: str, digit: int) -> None:
    assert secret not in redact(f"header {scheme} {secret}{digit} is wrong")


@given(st.sampled_from(["Authorization: Bearer ", "authorization=", '"Authorization": "Basic ']), word(8))
def test_authorization_headers_never_survive(beginning: str, secret: str) -> None:
    assert secret not in redact(f"sent {beginning}{secret}")


@given(st.sampled_from(["https", "s3", "postgresql+psycopg"]), word(0, 10), word(4))
def test_passwords_in_urls_never_survive(scheme: str, user: str, secret: str) -> None:
    secret += "~"  # so that it cannot be a part of the rest
    text = redact(f"cannot reach {scheme}://{user}:{secret}@host.example/path")
    assert secret not in text
    assert "host.example/path" in text


@given(word(20))
def test_tokens_in_place_of_a_user_never_survive(secret: str) -> None:
    assert secret not in redact(f"https://{secret}@host.example/path")


PARAMETERS = [
    *("X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "X-Goog-Signature", "Signature", "sig"),
    *("token", "access_token", "api_key", "apikey", "api-key", "AWSAccessKeyId", "client_secret", "password"),
]


@given(st.sampled_from(PARAMETERS), word(8), st.booleans())
def test_keys_in_query_strings_never_survive(name: str, secret: str, first: bool) -> None:
    secret += "~"
    query = f"{name}={secret}&part=1" if first else f"part=1&{name}={secret}"
    text = redact(f"GET https://host.example/file?{query} was refused")
    assert secret not in text
    assert "part=1" in text


@given(st.sampled_from(["HF_TOKEN=", "token: ", '"password": "', "AWS_SECRET_ACCESS_KEY=", "secret_key = "]), word(8))
def test_assigned_secrets_never_survive(name: str, secret: str) -> None:
    assert f"{secret}~" not in redact(f"with {name}{secret}~")


@given(word(10), word(10), word(10))
def test_json_web_tokens_never_survive(header: str, payload: str, signature: str) -> None:
    assert payload not in redact(f"id eyJ{header}.eyJ{payload}.{signature} expired")


def test_aws_key_ids_never_survive() -> None:
    assert redact("AKIAIOSFODNN7EXAMPLE is unknown") == "[redacted] is unknown"


@given(st.text(max_size=200))
def test_redacting_twice_is_redacting_once(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "sentence",
    [
        'Back-off pulling image "ghcr.io/ggml-org/llama.cpp:server-b11669"',
        'secret "hf-token" not found. Create it in namespace models, or correct the reference',
        "couldn't find key token in Secret models/hugging-face",
        "0/5 nodes are available: 3 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint {gpu: true}.",
        "401 Client Error: Unauthorized for url: https://huggingface.co/api/models/meta-llama/Llama-3.1-8B",
        "basic authentication is required, and bearer authentication is not offered",
        "the basic requirements are not met",
        "hf_transfer package is not available; install hf_transfer or unset HF_HUB_ENABLE_HF_TRANSFER",
        "max_tokens: 4096, eos_token_id: 2, tokens: 128000",
        "see https://docs.example/errors and write to admin@example.org",
        "git@github.com:org/repo.git",
        "RuntimeError: CUDA error: out of memory at /src/cuda.cpp:123",
        "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 does not match",
        "task-0123456789 and risk-free choices",
    ],
)
def test_ordinary_sentences_stay(sentence: str) -> None:
    assert redact(sentence) == sentence
