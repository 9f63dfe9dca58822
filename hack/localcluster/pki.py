"""Keys, certificates and kubeconfigs of one cluster.

Elliptic curve keys, because making ten of them takes no time at all.
"""

import base64
import dataclasses
import datetime
import ipaddress
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from localcluster.network import Ranges
from localcluster.state import write

NODE = "berth"
SECRET = 0o600
_VALID = datetime.timedelta(days=3650)
_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Subject:
    """Who a certificate is for: user and group for Kubernetes, addresses and names for servers."""

    common_name: str
    organization: str = ""
    names: tuple[str, ...] = ()


def subjects(ranges: Ranges) -> dict[str, Subject]:
    """Return the certificates that a cluster needs, by file name."""
    api_names = ("127.0.0.1", ranges.node, ranges.api_service, "localhost", "kubernetes", "kubernetes.default",
                 "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")  # fmt: skip
    return {
        "apiserver": Subject("kube-apiserver", names=api_names),
        "admin": Subject("admin", "system:masters"),
        "controller-manager": Subject("system:kube-controller-manager"),
        "scheduler": Subject("system:kube-scheduler"),
        "kubelet": Subject(f"system:node:{NODE}", "system:nodes", (ranges.node, "127.0.0.1", NODE)),
        "proxy": Subject("system:kube-proxy"),
        "front-proxy": Subject("front-proxy"),
    }


def create(folder: Path, ranges: Ranges) -> None:
    """Make an authority and every certificate, unless all of them were made before.

    The authority's key is not kept: nothing signs later.
    """
    done = folder / "done"
    if done.exists():
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _sign(Subject("berth-local-cluster"), authority_key, None, authority_key)
    write(folder / "ca.crt", authority.public_bytes(serialization.Encoding.PEM), SECRET)
    for name, subject in subjects(ranges).items():
        private = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign(subject, private, authority, authority_key)
        write(folder / f"{name}.key", _pem(private), SECRET)
        write(folder / f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM), SECRET)
    write(folder / "service-accounts.key", _pem(ec.generate_private_key(ec.SECP256R1())), SECRET)
    done.touch()


def write_kubeconfig(target: Path, folder: Path, name: str, server: str, context: str) -> None:
    """Write a kubeconfig with everything in it, for the certificate of this name."""

    def encoded(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [{"name": context, "cluster": {"server": server, "certificate-authority-data": encoded("ca.crt")}}],
        "users": [
            {
                "name": context,
                "user": {
                    "client-certificate-data": encoded(f"{name}.crt"),
                    "client-key-data": encoded(f"{name}.key"),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
    }
    write(target, yaml.safe_dump(content, sort_keys=False).encode(), SECRET)


def _sign(
    subject: Subject,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, subject.common_name)]
    if subject.organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject.organization))
    name = x509.Name(attributes)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        # Python 3.13 and newer refuse certificates that do not say whose key they have and whose signed them.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if issuer is None:
        builder = builder.add_extension(_SIGNS_CERTIFICATES, critical=True)
    else:
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if subject.names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(n) for n in subject.names]), critical=False
        )
    return builder.sign(issuer_key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
