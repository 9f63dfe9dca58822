"""From a uri to its source."""

from berth.provision.errors import ProvisionError, Reason
from berth.provision.manifest import Request
from berth.provision.sources import Source, SourceSettings
from berth.provision.sources.https import HttpsSource
from berth.provision.sources.huggingface import HuggingFaceSource
from berth.provision.sources.ollama import OllamaSource
from berth.provision.sources.s3 import S3Source


def source_for(request: Request, settings: SourceSettings) -> Source:
    """The source that the scheme of the uri names."""
    scheme = request.uri.partition("://")[0]
    if request.sha256 and scheme not in ("https", "http"):
        raise ProvisionError(
            Reason.INVALID_SOURCE, "sha256 is for a single https:// file: hubs publish their own digests"
        )
    if request.include and scheme not in ("hf", "s3"):
        raise ProvisionError(
            Reason.INVALID_SOURCE, f"include selects files of hf://, s3:// and pvc://, not of {scheme}://"
        )
    if scheme in ("https", "http"):
        return HttpsSource(request, settings)
    if scheme == "hf":
        return HuggingFaceSource(request, settings)
    if scheme == "ollama":
        return OllamaSource(request, settings)
    if scheme == "s3":
        return S3Source(request, settings)
    raise ProvisionError(
        Reason.INVALID_SOURCE, f"{scheme}:// cannot be downloaded: use hf://, https://, s3://, ollama:// or pvc://"
    )
