"""The command line of the download program: flags, the token, and the settings that follow from them."""

import argparse
import os
from pathlib import Path

from berth.provision.errors import ProvisionError, Reason
from berth.provision.paths import safe_path
from berth.provision.retrying import RetryPolicy
from berth.provision.run import ProvisionSettings
from berth.provision.sources import SourceSettings
from berth.provision.transfer import TransferSettings
from berth.provision.wishes import Wish, read_wish

_TOKEN_OF_HUB = "HF_TOKEN"  # noqa: S105 - a name
_TOKEN_OF_OTHERS = "BERTH_SOURCE_TOKEN"  # noqa: S105


def parser() -> argparse.ArgumentParser:
    """What a download is told on its command line."""
    parser = argparse.ArgumentParser(prog="berth provision", description="Brings the files of a model onto a volume.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--uri", help="hf://org/repo[@revision], https://…, ollama://name:tag, s3://bucket/…, pvc://…")
    what.add_argument("--remove", action="store_true", help="Remove the destination instead.")
    parser.add_argument("--destination", required=True, type=Path, help="Folder of the artifact, or the mounted claim.")
    parser.add_argument("--sha256", type=_digest, help="Digest of a single https:// file.")
    parser.add_argument("--include", nargs="+", action="extend", default=[], metavar="GLOB", help="Files to take.")
    parser.add_argument(
        "--for",
        dest="wishes",
        type=_wish,
        action="append",
        default=[],
        metavar="JSON",
        help='A Model that wants it, for example {"backend":"vllm","gpus":1}. Repeatable: one of them has to fit.',
    )
    parser.add_argument("--link", type=_link_name, metavar="NAME", help="Make a link to the only GGUF file.")
    parser.add_argument("--limit", type=int, metavar="BYTES", help="Most bytes that all files may have.")
    parser.add_argument("--token-file", type=Path, help="File with the token.")
    parser.add_argument(
        "--token-env",
        metavar="NAME",
        help=f"Environment variable with the token (default {_TOKEN_OF_HUB} for hf://, else {_TOKEN_OF_OTHERS}).",
    )
    parser.add_argument(
        "--endpoint", help="Mirror of the hub or registry, or server of S3; HF_ENDPOINT or AWS_ENDPOINT_URL otherwise."
    )
    parser.add_argument(
        "--ca-file",
        type=Path,
        action="append",
        default=[],
        help="Certificate authorities to trust besides the public ones.",
    )
    parser.add_argument("--connections", type=_positive, default=4, help="Connections at a time (default 4).")
    parser.add_argument("--timeout", type=float, default=60.0, help="Seconds of silence on a connection (default 60).")
    parser.add_argument("--tries", type=_positive, default=8, help="Failures in a row until giving up (default 8).")
    parser.add_argument("--first-wait", type=float, default=1.0, help="Seconds before the second try (default 1).")
    parser.add_argument("--lock-patience", type=float, default=3600.0, help="Seconds to wait for another download.")
    parser.add_argument("--host", default="0.0.0.0", help="Address of /progress and /metrics.")  # noqa: S104
    parser.add_argument("--port", type=int, help="Port of /progress and /metrics; none when omitted, 0 takes any.")
    parser.add_argument("--termination-log", type=Path, default=Path("/dev/termination-log"))
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


def _digest(text: str) -> str:
    if len(text) != 64 or any(character not in "0123456789abcdef" for character in text):
        raise argparse.ArgumentTypeError("64 digits, each 0-9 or a-f")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 64:
        raise argparse.ArgumentTypeError("between 1 and 64")
    return number


def _wish(text: str) -> Wish:
    try:
        return read_wish(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _link_name(text: str) -> str:
    try:
        name = safe_path(text)
    except ProvisionError as error:
        raise argparse.ArgumentTypeError("a file name") from error
    if "/" in name:
        raise argparse.ArgumentTypeError("a file name without a folder")
    return name


def token_of(options: argparse.Namespace) -> str | None:
    """The token, if there is one. Raises ProvisionError."""
    if options.token_file is not None:
        try:
            token = options.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError):
            raise ProvisionError(
                Reason.TOKEN_MISSING, f"{options.token_file} holds no token: check the Secret in source.secretRef"
            ) from None
    else:
        usual = _TOKEN_OF_HUB if options.uri.startswith("hf://") else _TOKEN_OF_OTHERS
        token = os.environ.get(options.token_env or usual, "").strip()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ProvisionError(
            Reason.TOKEN_REFUSED, "what the Secret in source.secretRef holds is no token: it has spaces or line ends"
        )
    return token or None


def shown_uri(uri: str) -> str:
    """The uri for people: a query may be a signature."""
    return uri.partition("?")[0] if uri.startswith(("https://", "http://")) else uri


def settings_of(options: argparse.Namespace, token: str | None) -> ProvisionSettings:
    """How the run behaves."""
    endpoint = options.endpoint
    if not endpoint and options.uri.startswith("hf://"):
        endpoint = os.environ.get("HF_ENDPOINT") or None
    own = os.environ.get("SSL_CERT_FILE")
    ca_files = (*options.ca_file, *([Path(own)] if own else []))
    return ProvisionSettings(
        source=SourceSettings(token, endpoint, options.timeout, ca_files),
        transfer=TransferSettings(
            connections=options.connections,
            limit=options.limit,
            retry=RetryPolicy(tries=options.tries, first_wait=options.first_wait),
        ),
        timeout=options.timeout,
        lock_patience=options.lock_patience,
        ca_files=ca_files,
        wishes=tuple(options.wishes),
        link=options.link,
    )
