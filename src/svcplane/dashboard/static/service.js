// One Service: its story as `svcplane explain` tells it, asked again whenever something of it changes.

import { get } from "./api.js";
import { age, h, mark, put, svg } from "./dom.js";
import { said } from "./traffic.js";

const MARKS = { problem: "none", warning: "some", note: "idle" };
const POD_MARKS = { endpoint: "ok", "not ready": "none", terminating: "some", "no endpoint": "none" };
const SHOWN = 12;
const BEHIND_MS = 1000;
const QUIET_MS = 10000; // what changes without an object that is watched: a proxy that stops, the time that passed

export class ServiceView {
  constructor(cluster, traffic, namespace, name) {
    Object.assign(this, { cluster, traffic, namespace, name });
    this.flows = new Map(); // Pod name -> the cell that tells its traffic
    this.leaveTraffic = traffic.follow(() => this.tellTraffic());
    this.key = `${namespace}/${name}`;
    this.element = h("article.page", { "aria-busy": "true" }, h("p.soft", {}, "loading …"));
    this.seen = "";
    this.busy = false;
    this.timer = 0;
    cluster.follow("events", true);
  }

  close() {
    this.cluster.follow("events", false);
    this.leaveTraffic();
    clearTimeout(this.timer);
    clearTimeout(this.again);
    this.closed = true;
  }

  /** What the story depends on, in short: where it is the same, the story is. */
  stamp() {
    const summary = this.cluster.summaries.get(this.key);
    const pods = [];
    for (const [key, pod] of this.cluster.pods) if (key.startsWith(`${this.namespace}/`)) pods.push(pod.metadata.resourceVersion);
    const nodes = [...this.cluster.nodes.values()].map((node) => `${node.metadata.name}${node.ready}`);
    return [summary?.service.metadata.resourceVersion, JSON.stringify(summary?.endpoints ?? ""), pods.join(), nodes.join(), this.events().length].join("|");
  }

  events() {
    const summary = this.cluster.summaries.get(this.key);
    const pods = new Set(summary?.endpoints.map((one) => one.pod));
    return [...this.cluster.events.values()].filter(({ involvedObject: about, metadata }) => {
      if (metadata.namespace !== this.namespace) return false;
      return about.kind === "Service" ? about.name === this.name : pods.has(`${about.namespace}/${about.name}`);
    }).sort((a, b) => (when(a) < when(b) ? 1 : -1));
  }

  update() {
    if (!this.cluster.synced || this.timer || this.busy) return;
    if (this.stamp() === this.seen) return;
    this.timer = setTimeout(() => { this.timer = 0; this.ask(); }, this.seen ? 250 : 0);
  }

  async ask() {
    this.busy = true;
    this.seen = this.stamp();
    try {
      const story = await get(`/console/api/explain/${encodeURIComponent(this.namespace)}/${encodeURIComponent(this.name)}`);
      if (!this.closed) this.show(story);
    } catch (error) {
      if (!this.closed) this.element.replaceChildren(h("h1", {}, this.name), h("p.problem", { role: "alert" }, error.message));
    }
    this.element.setAttribute("aria-busy", "false");
    this.busy = false;
    if (this.closed) return;
    this.update();
    clearTimeout(this.again);
    this.again = setTimeout(() => { if (!this.busy && !document.hidden) this.ask(); }, this.behind ? BEHIND_MS : QUIET_MS);
  }

  show(story) {
    this.flows.clear();
    this.behind = story.nodes.some((node) => node.programmed.startsWith("behind"));
    const summary = this.cluster.summaries.get(this.key);
    const state = summary?.state ?? "idle";
    const port = summary?.service.spec.ports?.[0];
    const query = new URLSearchParams({ target: this.key, port: port?.port ?? "", protocol: port?.protocol ?? "TCP" });
    put(this.element,
      h("header.title", {}, h("h1", {}, mark(state), this.name, h("small", {}, this.namespace)),
        h("span.badge", {}, story.type), h("span.grow"), port && h("a.button", { href: `#/trace?${query}` }, "Trace a connection")),
      this.findings(story.findings),
      h("div.cards", {},
        card("Addresses", story.addresses.length ? story.addresses.map((text) => h("div.mono", {}, text)) : h("span.soft", {}, "none")),
        card("Ports", story.ports.map((text) => h("div.mono", {}, text))),
        card("Selector", Object.entries(story.selector).map(([key, value]) => h("code.label", {}, `${key}=${value}`)), Object.keys(story.selector).length ? null : h("span.soft", {}, "none")),
        card("Policies", story.policies.map((text) => h("div", {}, text)))),
      this.diagram(story, summary),
      table("Pods", ["", "Pod", "State", "Why", "Traffic", "Address", "Node", "Zone"], story.pods.map((pod) =>
        [mark(POD_MARKS[pod.state] ?? "idle"), h("b", {}, pod.name), pod.state, pod.why, this.cell(pod.name), h("span.mono", {}, pod.addresses.join(", ")), pod.node, pod.zone])),
      table("Pods that the selector misses by little", ["Pod", "Difference"], story.near_misses.map((miss) => [h("b", {}, miss.pod), miss.difference])),
      table("EndpointSlices", ["Slice", "Family", "Ports", "Ready", "Not ready", "Terminating"], story.slices.map((slice) =>
        [h("span.mono", {}, slice.name), slice.family, slice.ports.join(", "), slice.ready, slice.not_ready, slice.terminating])),
      table("Nodes", ["", "Node", "Zone", "Endpoints here", "Programmed"], story.nodes.map((node) =>
        [mark(node.ready ? "ok" : "none"), h("a", { href: `#/rules?${new URLSearchParams({ node: node.name, words: this.key })}` }, node.name), node.zone, node.local, node.programmed])),
      table("Events", ["Age", "Object", "Reason", "Message"], this.events().slice(0, 20).map((event) =>
        [age(when(event)), event.involvedObject.name, event.reason, event.message])));
    this.tellTraffic();
  }

  cell(pod) {
    const cell = h("span.flow");
    this.flows.set(pod, cell);
    return cell;
  }

  tellTraffic() {
    for (const [pod, cell] of this.flows) {
      const text = said(this.traffic.of(this.key, `${this.namespace}/${pod}`)) ?? (this.traffic.known ? "none" : "not known");
      if (cell.textContent !== text) cell.textContent = text;
      cell.title = this.traffic.known ? "" : this.traffic.problem;
    }
  }

  findings(findings) {
    if (!findings.length) return h("p.fine", {}, mark("ok"), "No problem found.");
    return h("ul.findings", { "aria-label": "Findings" }, findings.map((one) => h(`li.${one.severity}`, {},
      mark(MARKS[one.severity]), h("div", {}, h("div", {}, h("b", {}, one.severity), " ", h("code.label", {}, one.subject), one.text),
        one.remedy && h("div.remedy", {}, one.remedy), h("small.soft", {}, one.code)))));
  }

  /** Service -> endpoints -> nodes. */
  diagram(story, summary) {
    const pods = story.pods.slice(0, SHOWN);
    if (!pods.length) return null;
    const nodes = [...new Set(pods.map((pod) => pod.node || "no node yet"))].sort();
    const step = 34;
    const height = Math.max(pods.length, nodes.length, 2) * step + 16;
    const [x0, x1, x2, width] = [210, 370, 690, 880];
    const y = (index, count) => (height * (index + 0.5)) / count;
    const parts = [];
    const edge = (ax, ay, bx, by, kind) => parts.push(svg(`path.edge.${kind}`, { d: `M${ax},${ay} C${(ax + bx) / 2},${ay} ${(ax + bx) / 2},${by} ${bx},${by}` }));
    pods.forEach((pod, index) => {
      const here = y(index, pods.length);
      const kind = POD_MARKS[pod.state] ?? "idle";
      edge(x0, height / 2, x1, here, kind);
      edge(x1 + 220, here, x2, y(nodes.indexOf(pod.node || "no node yet"), nodes.length), kind);
    });
    parts.push(box(0, height / 2, x0, this.name, story.addresses[0] ?? "", "service"));
    pods.forEach((pod, index) => parts.push(box(x1, y(index, pods.length), 220, pod.name, "", POD_MARKS[pod.state] ?? "idle")));
    nodes.forEach((node, index) => parts.push(box(x2, y(index, nodes.length), width - x2, node, "", "node")));
    const more = story.pods.length - pods.length;
    return h("section", {}, h("h2", {}, "Way of connections"),
      h("div.scroll", {}, svg("svg.diagram", { viewBox: `-4 0 ${width + 8} ${height}`, width: width + 8, height, role: "img", "aria-label":
        `${summary?.ready ?? 0} of ${story.pods.length} Pods take connections of ${this.name}` }, parts)),
      more > 0 && h("p.soft", {}, `and ${more} more Pods, below`));
  }
}

const when = (event) => event.lastTimestamp || event.eventTime || event.metadata.creationTimestamp || "";

function box(x, y, width, title, under, kind) {
  const height = under ? 40 : 26;
  const clip = (text) => (text.length > width / 7.2 ? `${text.slice(0, Math.floor(width / 7.2) - 1)}…` : text);
  return svg(`g.box.${kind}`, {}, svg("title", {}, title),
    svg("rect", { x, y: y - height / 2, width, height, rx: 6 }),
    svg("text", { x: x + 10, y: under ? y - 3 : y + 4 }, clip(title)),
    under && svg("text.under", { x: x + 10, y: y + 13 }, clip(under)));
}

function card(title, ...children) {
  return h("section.card", {}, h("h2", {}, title), children);
}

export function table(title, heads, rows) {
  if (!rows.length) return null;
  return h("section", {}, h("h2", {}, title, h("span.soft", {}, ` ${rows.length}`)), h("div.scroll", {}, h("table", {},
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell instanceof Node ? cell : String(cell ?? "")))))))));
}
