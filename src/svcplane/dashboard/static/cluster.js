// A live copy of what the console shows, and what follows from it: each Service with its endpoints and its state.
// One list and watch a kind; views are told at most once a frame.

import { ApiError, list, watch } from "./api.js";

const SERVICE_LABEL = "kubernetes.io/service-name";

export const keyOf = (object) => `${object.metadata.namespace ?? ""}/${object.metadata.name}`;

// What is kept of each kind; managed fields and the like are dropped at once.
const KINDS = {
  services: {
    path: "/api/v1/services",
    keep: ({ metadata, spec, status }) => ({ metadata: slim(metadata), spec, status }),
  },
  slices: {
    path: "/apis/discovery.k8s.io/v1/endpointslices",
    keep: ({ metadata, addressType, endpoints, ports }) => ({
      metadata: slim(metadata), addressType, endpoints: endpoints ?? [], ports: ports ?? [],
    }),
  },
  pods: {
    path: "/api/v1/pods",
    keep: ({ metadata, spec, status }) => ({
      metadata: slim(metadata),
      node: spec.nodeName ?? "",
      ip: status?.podIP ?? "",
      phase: metadata.deletionTimestamp ? "Terminating" : status?.phase ?? "Pending",
      ready: (status?.conditions ?? []).some((one) => one.type === "Ready" && one.status === "True"),
    }),
  },
  nodes: {
    path: "/api/v1/nodes",
    keep: ({ metadata, spec, status }) => ({
      metadata: slim(metadata),
      spec,
      ips: (status?.addresses ?? []).filter((one) => one.type === "InternalIP").map((one) => one.address),
      ready: (status?.conditions ?? []).some((one) => one.type === "Ready" && one.status === "True"),
    }),
  },
  events: { path: "/api/v1/events", keep: (event) => event },
};

function slim({ name, namespace, uid, labels, creationTimestamp, resourceVersion }) {
  return { name, namespace, uid, labels: labels ?? {}, creationTimestamp, resourceVersion };
}

class Collection {
  constructor(kind, changed, told) {
    Object.assign(this, KINDS[kind]);
    this.kind = kind;
    this.items = new Map();
    this.version = "";
    this.changed = changed;
    this.told = told;
    this.stopper = null;
  }

  start() {
    if (this.stopper) return;
    this.stopper = new AbortController();
    this.follow(this.stopper.signal);
  }

  stop() {
    this.stopper?.abort();
    this.stopper = null;
  }

  async follow(signal) {
    let failures = 0;
    while (!signal.aborted) {
      try {
        if (!this.version) await this.relist(signal);
        this.told(this.kind, "live");
        const began = performance.now();
        for await (const events of watch(this.path, this.version, signal)) {
          failures = 0;
          this.take(events);
        }
        if (performance.now() - began < 1000) throw new Error("the watch ended at once");
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && error.code === 410) this.version = "";
        else {
          failures += 1;
          this.told(this.kind, error instanceof ApiError ? error.code : "lost", error.message);
          const wait = Math.min(15000, 300 * 2 ** failures) * (0.5 + Math.random() / 2);
          await new Promise((done) => setTimeout(done, wait));
        }
      }
    }
  }

  async relist(signal) {
    const [items, version] = await list(this.path, signal);
    const before = this.items;
    this.items = new Map(items.map((item) => [keyOf(item), this.keep(item)]));
    this.version = version;
    for (const [key, item] of before) if (!this.items.has(key)) this.changed(this.kind, item, null);
    for (const [key, item] of this.items) this.changed(this.kind, before.get(key) ?? null, item);
    this.told(this.kind, "listed");
  }

  take(events) {
    for (const { type, object } of events) {
      if (type === "ERROR") throw new ApiError(object.code ?? 500, object.message);
      this.version = object.metadata.resourceVersion || this.version;
      if (type === "BOOKMARK") continue;
      const key = keyOf(object);
      const old = this.items.get(key) ?? null;
      if (type === "DELETED") this.items.delete(key);
      else this.items.set(key, this.keep(object));
      this.changed(this.kind, old, this.items.get(key) ?? null);
    }
  }
}

/** State of a Service by its endpoints: ok, some (not all ready), none, idle (nobody is meant to be behind it). */
function judge(service, endpoints) {
  const ready = endpoints.filter((one) => one.ready).length;
  if (!endpoints.length && (service.spec.type === "ExternalName" || !service.spec.selector)) return ["idle", 0];
  return [ready === 0 ? "none" : ready < endpoints.length ? "some" : "ok", ready];
}

export class Cluster {
  constructor() {
    this.views = new Set();
    this.states = new Map(); // kind -> live | lost | HTTP status
    this.messages = new Map();
    this.summaries = new Map(); // service key -> {service, endpoints, state, ready}
    this.slicesOf = new Map(); // service key -> Map(slice name -> slice)
    this.dirty = new Set();
    this.frame = 0;
    this.rest = 0;
    this.behind = false;
    this.generation = 0;
    this.sorted = [];
    const changed = (kind, old, now) => this.changed(kind, old, now);
    const told = (kind, state, message) => this.told(kind, state, message);
    this.collections = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, new Collection(kind, changed, told)]));
    this.wanted = new Set(["services", "slices", "pods", "nodes"]);
    // A browser gives a site six connections: a tab nobody sees gives its own back.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.pause() : this.start()));
  }

  get services() { return this.collections.services.items; }
  get pods() { return this.collections.pods.items; }
  get nodes() { return this.collections.nodes.items; }
  get events() { return this.collections.events.items; }

  start() { for (const kind of this.wanted) this.collections[kind].start(); }
  pause() { for (const one of Object.values(this.collections)) one.stop(); }

  /** Events are many and seldom looked at: they are followed only while a view wants them. */
  follow(kind, wanted) {
    if (wanted) {
      this.wanted.add(kind);
      this.collections[kind].start();
    } else if (this.wanted.delete(kind)) this.collections[kind].stop();
  }

  subscribe(view) {
    this.views.add(view);
    return () => this.views.delete(view);
  }

  told(kind, state, message = "") {
    this.states.set(kind, state);
    this.messages.set(kind, message);
    this.schedule();
  }

  get synced() {
    return ["services", "slices", "pods", "nodes"].every((kind) => this.collections[kind].version || this.states.get(kind) === 403);
  }

  changed(kind, old, now) {
    if (kind === "services") this.dirty.add(keyOf(now ?? old));
    else if (kind === "slices") {
      for (const slice of [old, now]) {
        const name = slice?.metadata.labels[SERVICE_LABEL];
        if (!name) continue;
        const key = `${slice.metadata.namespace}/${name}`;
        const group = this.slicesOf.get(key) ?? new Map();
        if (slice === now) group.set(slice.metadata.name, slice);
        else group.delete(slice.metadata.name);
        if (group.size) this.slicesOf.set(key, group);
        else this.slicesOf.delete(key);
        this.dirty.add(key);
      }
    }
    this.schedule();
  }

  /** At most once a frame; where telling takes long, it gets a quarter of the time and the user the rest. */
  schedule() {
    if (this.rest) this.behind = true;
    if (this.frame || this.rest) return;
    this.frame = requestAnimationFrame(() => {
      const began = performance.now();
      this.frame = 0;
      this.settle();
      for (const view of [...this.views]) view();
      const took = performance.now() - began;
      if (took < 8) return;
      this.rest = setTimeout(() => {
        this.rest = 0;
        if (this.behind) this.schedule();
        this.behind = false;
      }, took * 3);
    });
  }

  settle() {
    if (!this.dirty.size) return;
    for (const key of this.dirty) {
      const service = this.services.get(key);
      if (service) this.summaries.set(key, this.summary(key, service));
      else this.summaries.delete(key);
    }
    this.dirty.clear();
    this.generation += 1;
    this.sorted = [...this.summaries.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  summary(key, service) {
    const endpoints = new Map(); // one a Pod: dual-stack Services have each Pod twice
    for (const slice of this.slicesOf.get(key)?.values() ?? []) {
      for (const one of slice.endpoints) {
        const pod = one.targetRef?.kind === "Pod" ? `${one.targetRef.namespace}/${one.targetRef.name}` : "";
        const id = pod || one.addresses[0];
        const conditions = one.conditions ?? {};
        endpoints.set(id, {
          id, pod, node: one.nodeName ?? "", zone: one.zone ?? "", ip: one.addresses[0],
          ips: [...(endpoints.get(id)?.ips ?? []), one.addresses[0]],
          ready: conditions.ready !== false, terminating: conditions.terminating === true,
        });
      }
    }
    const found = [...endpoints.values()];
    const [state, ready] = judge(service, found);
    const ports = (service.spec.ports ?? []).map((port) => `${port.port}${port.protocol === "TCP" ? "" : `/${port.protocol}`}`);
    const text = [key, service.spec.clusterIP, service.spec.type, ...ports,
      ...Object.entries(service.spec.selector ?? {}).map(([name, value]) => `${name}=${value}`)].join(" ").toLowerCase();
    return { key, service, endpoints: found, state, ready, ports, text };
  }
}
