// What goes over the Services now: asked of the nodes' agents while somebody looks, told by Service and endpoint.

import { ApiError, get } from "./api.js";

const AGAIN_MS = 1500;
const LATER_MS = 20000; // where no node can tell

export class Traffic {
  constructor(cluster) {
    this.cluster = cluster;
    this.services = new Map(); // service key -> {new, active, bytes, ends: Map(endpoint id -> {new, active, bytes})}
    this.total = { new: 0, active: 0 };
    this.problem = "";
    this.known = false;
    this.views = new Set();
    this.timer = 0;
    document.addEventListener("visibilitychange", () => this.next(0));
  }

  /** `view` is told after each look, until the function given back is called. */
  follow(view) {
    this.views.add(view);
    this.next(0);
    return () => this.views.delete(view);
  }

  next(after) {
    if (this.timer || this.asking || !this.views.size || document.hidden) return;
    this.timer = setTimeout(() => { this.timer = 0; this.look(); }, after);
  }

  async look() {
    if (!this.cluster.synced) return this.next(300);
    this.asking = true;
    let wait = AGAIN_MS;
    try {
      const nodes = await get("/console/api/traffic");
      const told = nodes.filter((one) => !one.problem);
      this.known = told.length > 0;
      const silent = nodes.find((one) => one.problem);
      this.problem = silent ? `${silent.node}: ${silent.problem}` : "";
      if (!this.known) wait = LATER_MS;
      this.take(told);
    } catch (error) {
      wait = LATER_MS;
      this.known = false;
      this.problem = error instanceof ApiError && error.code === 403 ? "not allowed to ask the nodes" : error.message;
      this.take([]);
    }
    this.asking = false;
    for (const view of this.views) view();
    return this.next(wait);
  }

  take(nodes) {
    const index = frontends(this.cluster);
    this.services = new Map();
    this.total = { new: 0, active: 0 };
    for (const { flows, seconds } of nodes) {
      for (const flow of flows) {
        const summary = index.get(`${flow.protocol} ${flow.address} ${flow.port}`) ?? index.get(`${flow.protocol} node ${flow.port}`);
        if (!summary) continue;
        const end = summary.endpoints.find((one) => one.ips.includes(flow.endpoint));
        const service = this.services.get(summary.key) ?? { ...nothing(), ends: new Map() };
        const edge = service.ends.get(end?.id ?? "") ?? nothing();
        for (const sum of [service, edge, this.total]) add(sum, flow, seconds);
        service.ends.set(end?.id ?? "", edge);
        this.services.set(summary.key, service);
      }
    }
  }

  of(key, endpoint) {
    const service = this.services.get(key);
    return endpoint === undefined ? service : service?.ends.get(endpoint);
  }
}

const nothing = () => ({ new: 0, active: 0, bytes: null });

function add(sum, { new: begun, active, sent, received }, seconds) {
  sum.new += begun / seconds;
  sum.active += active;
  if (sent !== null && received !== null) sum.bytes = (sum.bytes ?? 0) + (sent + received) / seconds;
}

/** "protocol address port" -> Service. */
function frontends({ sorted }) {
  const index = new Map();
  for (const summary of sorted) {
    const { spec, status } = summary.service;
    const ips = [...(spec.clusterIPs ?? []), ...(spec.externalIPs ?? []), ...(status?.loadBalancer?.ingress ?? []).map((one) => one.ip)];
    for (const { protocol, port, nodePort } of spec.ports ?? []) {
      const name = (protocol ?? "TCP").toLowerCase();
      for (const ip of ips) index.set(`${name} ${ip} ${port}`, summary);
      if (nodePort) index.set(`${name} node ${nodePort}`, summary);
    }
  }
  return index;
}

/** In words; null where there is none. */
export function said(traffic) {
  if (!traffic) return null;
  const rate = `${number(traffic.new)} new/s, ${traffic.active} active`;
  return traffic.bytes === null ? rate : `${rate}, ${bytes(traffic.bytes)}`;
}

export const number = (value) => (value >= 10 ? value.toFixed(0) : value.toFixed(1).replace(/\.0$/, ""));

export function bytes(value) {
  if (value < 1000) return `${value.toFixed(0)} B/s`;
  if (value < 1e6) return `${(value / 1e3).toFixed(1)} kB/s`;
  return `${(value / 1e6).toFixed(1)} MB/s`;
}
