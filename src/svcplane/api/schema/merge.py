"""How items of lists are told apart when objects are merged.  Pure tables.

Source: `+listType`, `+listMapKey`, `patchStrategy` and `patchMergeKey` of the types in k8s.io/api v1.
"""

#: For server-side apply.  Lists that are named neither here nor in SET_LISTS are atomic.
LIST_KEYS: dict[str, tuple[str, ...]] = {
    "ObjectMeta.ownerReferences": ("uid",),
    "ServiceSpec.ports": ("port", "protocol"),
    "ServiceStatus.conditions": ("type",),
    "PodSpec.containers": ("name",),
    "PodSpec.initContainers": ("name",),
    "PodSpec.ephemeralContainers": ("name",),
    "PodSpec.volumes": ("name",),
    "PodSpec.imagePullSecrets": ("name",),
    "PodSpec.hostAliases": ("ip",),
    "PodSpec.topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "PodSpec.schedulingGates": ("name",),
    "PodSpec.resourceClaims": ("name",),
    "PodStatus.conditions": ("type",),
    "PodStatus.podIPs": ("ip",),
    "PodStatus.resourceClaimStatuses": ("name",),
    "NodeStatus.addresses": ("type",),
    "NodeStatus.conditions": ("type",),
    "NamespaceStatus.conditions": ("type",),
    "ServiceCIDRStatus.conditions": ("type",),
    "ResourceRequirements.claims": ("name",),
    **{
        f"{kind}.{field}": keys
        for kind in ("Container", "EphemeralContainer")
        for field, keys in {
            "ports": ("containerPort", "protocol"),
            "env": ("name",),
            "volumeMounts": ("mountPath",),
            "volumeDevices": ("devicePath",),
        }.items()
    },
}

#: Lists of scalars that behave as sets in server-side apply.
SET_LISTS = frozenset({"ObjectMeta.finalizers", "NodeSpec.podCIDRs"})

#: Structs that are one value in server-side apply, and so are the maps of these places.
ATOMIC_STRUCTS = frozenset(
    {
        "ObjectReference",
        "OwnerReference",
        "LocalObjectReference",
        "ObjectFieldSelector",
        "ResourceFieldSelector",
        "ConfigMapKeySelector",
        "SecretKeySelector",
        "NodeSelector",
        "NodeSelectorTerm",
        "LabelSelector",
    }
)
ATOMIC_MAPS = frozenset({"ServiceSpec.selector", "PodSpec.nodeSelector"})

#: For strategic merge patches: `patchStrategy: merge` with this key; "" as key marks lists of scalars.
STRATEGIC_KEYS: dict[str, str] = {
    "ObjectMeta.ownerReferences": "uid",
    "ObjectMeta.finalizers": "$scalar",
    "ServiceSpec.ports": "port",
    "ServiceStatus.conditions": "type",
    "PodSpec.containers": "name",
    "PodSpec.initContainers": "name",
    "PodSpec.ephemeralContainers": "name",
    "PodSpec.volumes": "name",
    "PodSpec.imagePullSecrets": "name",
    "PodSpec.hostAliases": "ip",
    "PodSpec.topologySpreadConstraints": "topologyKey",
    "PodSpec.schedulingGates": "name",
    "PodSpec.resourceClaims": "name",
    "PodStatus.conditions": "type",
    "PodStatus.podIPs": "ip",
    "PodStatus.hostIPs": "ip",
    "NodeSpec.podCIDRs": "$scalar",
    "NodeStatus.addresses": "type",
    "NodeStatus.conditions": "type",
    "NamespaceStatus.conditions": "type",
    "ServiceCIDRStatus.conditions": "type",
    **{
        f"{kind}.{field}": key
        for kind in ("Container", "EphemeralContainer")
        for field, key in {
            "ports": "containerPort",
            "env": "name",
            "volumeMounts": "mountPath",
            "volumeDevices": "devicePath",
        }.items()
    },
}
