"""Core `v1` objects as consumers see them; see `api.meta` for the rules."""

from typing import Any

import msgspec

from svcplane.api.meta import Object, ObjectReference, Wire

IntOrString = int | str


class ServicePort(Wire):
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str | None = None
    port: int = 0
    target_port: IntOrString = 0
    node_port: int = 0


class ClientIPConfig(Wire):
    timeout_seconds: int | None = None


class SessionAffinityConfig(Wire):
    client_ip: ClientIPConfig | None = msgspec.field(name="clientIP", default=None)


class ServiceSpec(Wire):
    ports: list[ServicePort] = []
    selector: dict[str, str] = {}
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: list[str] = msgspec.field(name="clusterIPs", default_factory=list)
    type: str = "ClusterIP"
    external_ips: list[str] = msgspec.field(name="externalIPs", default_factory=list)
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    load_balancer_ip: str = msgspec.field(name="loadBalancerIP", default="")
    load_balancer_source_ranges: list[str] = []
    load_balancer_class: str | None = None
    external_name: str = ""
    external_traffic_policy: str = ""
    internal_traffic_policy: str | None = None
    health_check_node_port: int = 0
    publish_not_ready_addresses: bool = False
    ip_families: list[str] = []
    ip_family_policy: str | None = None
    allocate_load_balancer_node_ports: bool | None = None
    traffic_distribution: str | None = None


class LoadBalancerIngress(Wire):
    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None


class LoadBalancerStatus(Wire):
    ingress: list[LoadBalancerIngress] = []


class ServiceStatus(Wire):
    load_balancer: LoadBalancerStatus = msgspec.field(default_factory=LoadBalancerStatus)


class Service(Object):
    spec: ServiceSpec = msgspec.field(default_factory=ServiceSpec)
    status: ServiceStatus = msgspec.field(default_factory=ServiceStatus)


class EndpointAddress(Wire):
    ip: str = ""
    hostname: str = ""
    node_name: str | None = None
    target_ref: ObjectReference | None = None


class EndpointPort(Wire):
    name: str = ""
    port: int = 0
    protocol: str = "TCP"
    app_protocol: str | None = None


class EndpointSubset(Wire):
    addresses: list[EndpointAddress] = []
    not_ready_addresses: list[EndpointAddress] = []
    ports: list[EndpointPort] = []


class Endpoints(Object):
    subsets: list[EndpointSubset] = []


class ContainerPort(Wire):
    name: str = ""
    container_port: int = 0
    host_port: int = 0
    protocol: str = "TCP"
    host_ip: str = msgspec.field(name="hostIP", default="")


class ObjectFieldSelector(Wire):
    field_path: str = ""


class EnvVarSource(Wire):
    field_ref: ObjectFieldSelector | None = None


class OptionalSource(Wire):
    optional: bool = False


class EnvFromSource(Wire):
    config_map_ref: OptionalSource | None = None
    secret_ref: OptionalSource | None = None


class EnvVar(Wire):
    name: str = ""
    value: str = ""
    value_from: EnvVarSource | None = None


class ExecAction(Wire):
    command: list[str] = []


class HTTPHeader(Wire):
    name: str = ""
    value: str = ""


class HTTPGetAction(Wire):
    path: str = "/"
    port: IntOrString = 0
    host: str = ""
    scheme: str = "HTTP"
    http_headers: list[HTTPHeader] = []


class TCPSocketAction(Wire):
    port: IntOrString = 0
    host: str = ""


class GRPCAction(Wire):
    port: int = 0
    service: str = ""


class Probe(Wire):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class SleepAction(Wire):
    seconds: int = 0


class LifecycleHandler(Wire):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Wire):
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None


class VolumeMount(Wire):
    name: str = ""
    mount_path: str = ""
    read_only: bool = False
    recursive_read_only: str | None = None
    sub_path: str = ""
    sub_path_expr: str = ""

    @property
    def read_only_below(self) -> bool:
        """Whether a read-only mount is so with all that is mounted below it."""
        return self.recursive_read_only in ("Enabled", "IfPossible")


class SecurityContext(Wire):
    """Who a container's process is; a container's own values overrule its Pod's."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None


class PodSecurityContext(SecurityContext):
    supplemental_groups: list[int] = []
    fs_group: int | None = None


class Container(Wire):
    name: str = ""
    image: str = ""
    command: list[str] = []
    args: list[str] = []
    working_dir: str = ""
    ports: list[ContainerPort] = []
    env: list[EnvVar] = []
    env_from: list[EnvFromSource] = []
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    restart_policy: str | None = None
    volume_mounts: list[VolumeMount] = []
    security_context: SecurityContext | None = None
    resources: dict[str, Any] = {}


class PodReadinessGate(Wire):
    condition_type: str = ""


class PodSpec(Wire):
    containers: list[Container] = []
    init_containers: list[Container] = []
    readiness_gates: list[PodReadinessGate] = []
    restart_policy: str = "Always"
    termination_grace_period_seconds: int | None = None
    node_name: str = ""
    node_selector: dict[str, str] = {}
    host_network: bool = False
    hostname: str = ""
    subdomain: str = ""
    service_account_name: str = ""
    enable_service_links: bool | None = None
    volumes: list[dict[str, Any]] = []
    security_context: PodSecurityContext | None = None


class PodCondition(Wire):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    last_probe_time: str | None = None


class PodIP(Wire):
    ip: str = ""


class ContainerStatus(Wire):
    name: str = ""
    ready: bool = False
    restart_count: int = 0
    started: bool | None = None
    container_id: str = msgspec.field(name="containerID", default="")
    state: dict[str, dict[str, Any] | None] = {}
    last_state: dict[str, dict[str, Any] | None] = {}


class PodStatus(Wire):
    phase: str = ""
    conditions: list[PodCondition] = []
    reason: str = ""
    message: str = ""
    host_ip: str = msgspec.field(name="hostIP", default="")
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[PodIP] = msgspec.field(name="podIPs", default_factory=list)
    start_time: str | None = None
    container_statuses: list[ContainerStatus] = []
    init_container_statuses: list[ContainerStatus] = []


class Pod(Object):
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class Taint(Wire):
    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(Wire):
    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: list[str] = msgspec.field(name="podCIDRs", default_factory=list)
    taints: list[Taint] = []
    unschedulable: bool = False


class NodeAddress(Wire):
    type: str = ""
    address: str = ""


class NodeCondition(Wire):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_heartbeat_time: str | None = None
    last_transition_time: str | None = None


class NodeStatus(Wire):
    addresses: list[NodeAddress] = []
    conditions: list[NodeCondition] = []
    allocatable: dict[str, str] = {}


class Node(Object):
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class NamespaceStatus(Wire):
    phase: str = ""


class Namespace(Object):
    status: NamespaceStatus = msgspec.field(default_factory=NamespaceStatus)
