"""A store in etcd v3, which several API servers share.  `store.EtcdStore` implements the contract.

`wire` turns transactions and answers into the gateway's JSON and back (pure), `gateway` speaks HTTP with one of
several etcd servers, `store` puts them together.
"""

from svcplane.store.etcd.gateway import EtcdAccess
from svcplane.store.etcd.store import COMPACT_EVERY_S, EtcdStore

__all__ = ["COMPACT_EVERY_S", "EtcdAccess", "EtcdStore"]
