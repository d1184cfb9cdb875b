"""Where each page's commands run, what they give, and the short list of those that cannot run, with reasons.

A page that shows commands and is not here fails the test, and so does an entry that no page shows any more.
"""

from dataclasses import dataclass, field

EXAMPLES = (
    "kubectl apply -f examples/",
    "kubectl wait --for=condition=Ready pod/hello-1 pod/hello-2 pod/hello-3 --timeout=60s",
    "svcplane wait svc/hello --programmed",
    "svcplane wait svc/sticky --programmed",
)


def up(mode: str = "nftables") -> tuple[str, ...]:
    """A cluster of this one host, with the examples."""
    return (f"svcplane up --proxy-mode {mode}", "export KUBECONFIG=/var/lib/svcplane/kubeconfig", *EXAMPLES)


ETCD = (
    "ip address add 10.0.0.1/32 dev lo",
    "etcd --data-dir $HOME/etcd --listen-client-urls http://10.0.0.1:2379 --advertise-client-urls http://10.0.0.1:2379",
)


@dataclass(frozen=True)
class Page:
    """`before`: run first; `cannot`: command -> reason.

    `status`: of a command that ends with another than 0, each time it is shown; `judging`: commands whose status
    depends on the host they look at, 0 or 1.
    """

    before: tuple[str, ...] = ()
    status: dict[str, tuple[int, ...]] = field(default_factory=dict)
    judging: tuple[str, ...] = ()
    cannot: dict[str, str] = field(default_factory=dict)


PAGES = {
    "README.md": Page(
        cannot={
            "make demo": "tests/kernel/lab/test_demo.py runs what it runs",
            "make test": "this is part of it",
        },
    ),
    "docs/tutorial.md": Page(
        status={"svcplane lab exec client -- svcplane explain svc/hello": (0, 1)},
    ),
    "docs/troubleshooting.md": Page(
        before=up(),
        status={"svcplane trace svc/hello:8080 --from node": (1,)},
    ),
    "docs/console.md": Page(),
    "docs/lab.md": Page(),
    "docs/logs.md": Page(
        before=up(),
        status={"svcplane logs hello-1 -c echo -p": (1,)},
        cannot={
            "svcplane node --kubeconfig node7.kubeconfig --hostname-override node7 --node-ip 192.0.2.7"
            " --tls-cert-file node7.crt --tls-private-key-file node7.key": "for another host, which is not here",
        },
    ),
    "docs/nftables.md": Page(before=up("nftables")),
    "docs/iptables.md": Page(before=up("iptables")),
    "docs/plain-hosts.md": Page(),
    "docs/proxy.md": Page(
        before=("svcplane apiserver --data-dir /var/lib/svcplane", "export KUBECONFIG=/var/lib/svcplane/kubeconfig"),
        judging=("svcplane doctor", "svcplane plan --drift"),
        cannot={
            "kubectl apply -f deploy/rbac.yaml -f deploy/proxy.yaml": "needs a cluster with DaemonSets",
            "kubectl -n kube-system rollout status daemonset svcplane-proxy": "needs a cluster with DaemonSets",
            "kubectl -n kube-system delete daemonset kube-proxy": "needs a cluster with DaemonSets",
        },
    ),
    "docs/etcd.md": Page(before=ETCD),
    "docs/benchmarks.md": Page(
        cannot={
            "make bench": "takes many minutes; tests/bench runs every group at a tiny size",
            'make bench GROUPS="api watch"': "takes minutes; tests/bench runs every group at a tiny size",
            ".venv/bin/python -m benchmarks api --json figures.json": "takes a minute; tests/bench runs every group",
        },
    ),
}

#: Pages whose examples another test runs: the page, and the test.
ELSEWHERE = {"docs/testing.md": "tests/wire/test_plugin.py"}
