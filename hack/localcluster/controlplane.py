"""etcd, API server, controller manager and scheduler: how each is started."""

from pathlib import Path

from localcluster.network import Ranges
from localcluster.pki import write_kubeconfig
from localcluster.state import Paths, State, write

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_ETCD = "http://127.0.0.1:2379"

_AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""


def write_configuration(where: Paths, state: State, ranges: Ranges) -> None:
    """Write the files that the commands below name."""
    where.conf.mkdir(exist_ok=True)
    for name in ("controller-manager", "scheduler"):
        write_kubeconfig(where.conf / f"{name}.kubeconfig", where.pki, name, ranges.api_url, "local")
    write_kubeconfig(where.kubeconfig, where.pki, "admin", ranges.api_url, f"berth-{state.name}")
    if state.audit:
        write(where.conf / "audit.yaml", _AUDIT_POLICY)


def commands(where: Paths, state: State, ranges: Ranges, binaries: dict[str, Path]) -> dict[str, list[str]]:
    """Return the command line of each component, in the order of starting."""
    pki, conf = where.pki, where.conf
    apiserver = [
        f"--etcd-servers={_ETCD}",
        "--secure-port=6443",
        "--bind-address=0.0.0.0",
        f"--advertise-address={ranges.node}",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--service-account-key-file={pki}/service-accounts.key",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
        f"--service-cluster-ip-range={ranges.services}",
        f"--kubelet-client-certificate={pki}/admin.crt",
        f"--kubelet-client-key={pki}/admin.key",
        # Otherwise logs, exec and port-forward would look up the node's name.
        "--kubelet-preferred-address-types=InternalIP",
        "--anonymous-auth=false",
        "--allow-privileged=true",
        f"--requestheader-client-ca-file={pki}/ca.crt",
        # One authority for both: without this, any client certificate could speak for others.
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
        "--profiling=false",
    ]
    if state.audit:
        apiserver += [f"--audit-policy-file={conf}/audit.yaml", f"--audit-log-path={where.audit_log}"]
    etcd = [
        f"--data-dir={where.root}/etcd",
        "--unsafe-no-fsync",  # the data is worth nothing after a crash of the machine
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--log-level=warn",
    ]
    controller_manager = [
        "--bind-address=127.0.0.1",
        f"--kubeconfig={conf}/controller-manager.kubeconfig",
        f"--service-account-private-key-file={pki}/service-accounts.key",
        f"--root-ca-file={pki}/ca.crt",
        "--use-service-account-credentials",
        # With the default of 20 a second, a thousand Deployments wait for their Pods for minutes.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--leader-elect=false",
        "--controllers=*,-nodeipam",
    ]
    scheduler = [
        "--bind-address=127.0.0.1",
        f"--kubeconfig={conf}/scheduler.kubeconfig",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]
    arguments = zip(COMPONENTS, (etcd, apiserver, controller_manager, scheduler), strict=True)
    return {name: [str(binaries[name]), *args] for name, args in arguments}
