"""Which zero values a Go round trip drops and which it keeps.  Pure tables.

Kubernetes decodes into Go structs and encodes again: an empty text, list or map is dropped where the field
says `omitempty`, a 0 or false where it is no pointer too.  The tables name the exceptions of each rule.
Source: the struct tags in k8s.io/api v1.
"""

#: Numbers and booleans that are no pointers: 0 and false are dropped.
VALUE_SCALARS = frozenset(
    {
        "ObjectMeta.generation",
        "ServiceSpec.publishNotReadyAddresses",
        "ServiceSpec.healthCheckNodePort",
        "ServicePort.nodePort",
        "ContainerPort.hostPort",
        "PodSpec.hostNetwork",
        "PodSpec.hostPID",
        "PodSpec.hostIPC",
        "PodStatus.observedGeneration",
        "PodCondition.observedGeneration",
        "NodeSpec.unschedulable",
        "Condition.observedGeneration",
        "Event.count",
        "EventSeries.count",
        "VolumeMount.readOnly",
        "ContainerStateTerminated.signal",
        "ContainerImage.sizeBytes",
        "DaemonEndpoint.port_",
        *(f"{kind}.{field}" for kind in ("Container", "EphemeralContainer") for field in ("stdin", "stdinOnce", "tty")),
        *(
            f"Probe.{field}"
            for field in (
                "initialDelaySeconds",
                "timeoutSeconds",
                "periodSeconds",
                "successThreshold",
                "failureThreshold",
            )
        ),
        "NFSVolumeSource.readOnly",
        "PersistentVolumeClaimVolumeSource.readOnly",
    }
)

#: Texts, lists and maps without `omitempty`: kept when empty (those that svcplane's kinds show).
KEPT_WHEN_EMPTY = frozenset(
    {
        "Container.name",
        "ContainerStatus.name",
        "ContainerStatus.image",
        "ContainerStatus.imageID",
        "EnvVar.name",
        "Endpoint.addresses",
        "EndpointSlice.endpoints",
        "EndpointSlice.addressType",
        "EndpointAddress.ip",
        "LocalObjectReference.name_",
        "PodCondition.type",
        "PodCondition.status",
        "NodeCondition.type",
        "NodeCondition.status",
        "NodeAddress.type",
        "NodeAddress.address",
        "Taint.key",
        "Taint.effect",
        "ObjectFieldSelector.fieldPath",
        "OwnerReference.apiVersion",
        "OwnerReference.kind",
        "OwnerReference.name",
        "OwnerReference.uid",
        "Volume.name",
        "VolumeMount.name",
        "VolumeMount.mountPath",
        "ForZone.name",
        "ForNode.name",
        "HTTPHeader.name",
        "HTTPHeader.value",
        "Condition.type",
        "Condition.status",
        "Condition.reason",
        "Condition.message",
        "Condition.lastTransitionTime",
        "Event.reportingComponent",
        "Event.reportingInstance",
    }
)

#: Texts that are pointers: "" is a value of its own.
POINTER_STRINGS = frozenset(
    {
        "EndpointPort.name",
        "EndpointPort.appProtocol",
        "EndpointPort.protocol",
        "Endpoint.hostname",
        "Endpoint.nodeName",
        "Endpoint.zone",
        "EndpointAddress.nodeName",
        "ServicePort.appProtocol",
        "ServiceSpec.loadBalancerClass",
        "ServiceSpec.internalTrafficPolicy",
        "ServiceSpec.ipFamilyPolicy",
        "ServiceSpec.trafficDistribution",
        "LoadBalancerIngress.ipMode",
        "LeaseSpec.holderIdentity",
        "PodSpec.runtimeClassName",
        "PodSpec.priorityClassName_",
        "PortStatus.error",
    }
)
