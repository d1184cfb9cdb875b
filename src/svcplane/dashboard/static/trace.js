// Where a connection goes: a form, and the answer drawn as a path.

import { get } from "./api.js";
import { h, mark, put, svg } from "./dom.js";
import { table } from "./service.js";

const TONES = { deliver: "ok", reject: "none", drop: "none", pass: "idle" };

export class TraceView {
  constructor(cluster, asked) {
    this.cluster = cluster;
    const field = (name, label, control, hint = "") => {
      control.id = `trace-${name}`;
      control.name = name;
      return h("div.field", {}, h("label", { for: control.id }, label), control, hint && h("small.soft", {}, hint));
    };
    this.sources = h("datalist", { id: "sources" });
    this.targets = h("datalist", { id: "targets" });
    this.from = h("input", { list: "sources", required: true, value: asked.get("source") ?? "", placeholder: "default/client" });
    this.to = h("input", { list: "targets", required: true, value: asked.get("target") ?? "", placeholder: "default/web", oninput: () => this.suggest() });
    this.port = h("input", { type: "number", min: "1", max: "65535", required: true, value: asked.get("port") ?? "" });
    this.protocol = h("select", {}, ["TCP", "UDP", "SCTP"].map((name) => h("option", {}, name)));
    this.protocol.value = asked.get("protocol") ?? "TCP";
    this.mode = h("select", {}, h("option", { value: "" }, "the node's"), ["nftables", "iptables", "ipvs", "userspace"].map((name) => h("option", { value: name }, name)));
    this.mode.value = asked.get("mode") ?? "";
    this.node = h("select", {});
    this.wish = asked.get("node") ?? "";
    this.answer = h("div.answer", { "aria-live": "polite" });
    this.form = h("form.trace", { onsubmit: (event) => { event.preventDefault(); this.ask(); } },
      field("source", "From", this.from, "Pod, node or address"), field("target", "To", this.to, "Service or address"),
      field("port", "Port", this.port), field("protocol", "Protocol", this.protocol), field("mode", "Proxy mode", this.mode),
      field("node", "Seen by", this.node), h("button.primary", { type: "submit" }, "Trace"), this.sources, this.targets);
    this.element = h("article.page", {}, h("h1", {}, "Trace a connection"),
      h("p.soft", {}, "What becomes of the first packet of a connection: what is desired, what the live rules of the node do with it, and whose other rules are in its way."),
      this.form, this.answer);
  }

  close() {}

  update() {
    const cluster = this.cluster;
    if (!cluster.synced) return;
    const stamp = `${cluster.pods.size} ${cluster.generation} ${cluster.nodes.size}`;
    if (stamp === this.stamp) return;
    this.stamp = stamp;
    const option = (value, label) => h("option", { value, label });
    const nodes = [...cluster.nodes.values()].map((node) => node.metadata.name).sort();
    this.sources.replaceChildren(...nodes.map((name) => option(name, "node")),
      ...[...cluster.pods.keys()].slice(0, 500).map((key) => option(key, "Pod")));
    this.targets.replaceChildren(...cluster.sorted.slice(0, 1000).map((one) => option(one.key, one.service.spec.clusterIP)));
    const chosen = this.node.options.length ? this.node.value : this.wish;
    this.node.replaceChildren(h("option", { value: "" }, "source's node"), ...nodes.map((name) => h("option", { value: name }, name)));
    this.node.value = chosen;
  }

  suggest() {
    const port = this.cluster.summaries.get(this.to.value)?.service.spec.ports?.[0];
    if (port && !this.port.value) {
      this.port.value = port.port;
      this.protocol.value = port.protocol ?? "TCP";
    }
  }

  async ask() {
    const query = new URLSearchParams({ source: this.from.value, target: this.to.value, port: this.port.value,
      protocol: this.protocol.value, mode: this.mode.value, node: this.node.value });
    history.replaceState(null, "", `#/trace?${query}`);
    try {
      this.show(await get(`/console/api/trace?${query}`));
    } catch (error) {
      this.answer.replaceChildren(h("p.problem", { role: "alert" }, error.message));
    }
  }

  show({ steps, trace }) {
    const tone = TONES[trace.verdict] ?? "some";
    put(this.answer,
      h("p.verdict", {}, mark(tone), h("b", {}, trace.verdict), ` – ${trace.why}`, agreement(trace)),
      h("div.scroll", {}, draw(steps, trace, tone)),
      table(trace.verdict.includes("deliver") ? "Endpoints it may get" : "Endpoints it was meant for", ["Endpoint", "Pod", "Node", "Probability", "The Pod sees"], trace.shares.map((one) =>
        [h("span.mono", {}, one.endpoint), one.pod, one.node, `${(one.probability * 100).toFixed(1)} %`, one.sees])),
      table("Endpoints passed over", ["Endpoint", "Why"], trace.passed_over.map(([endpoint, why]) => [h("span.mono", {}, endpoint), why])),
      trace.way.length ? h("section", {}, h("h2", {}, "Way through the live rules"), trace.way.map((hops) =>
        h("ol.hops", {}, hops.map((hop) => h("li.mono", {}, hop))))) : null,
      table("Rules of somebody else", ["What it does", "To", "Where", "Rule"], trace.blocked.map((one) => [one.sure ? `${one.verb}s it` : `may ${one.verb} it`,
        h("span.mono", {}, one.endpoint), `${one.hook}: ${one.family} table ${one.table}, chain ${one.chain}`, h("span.mono", {}, one.rule)])),
      trace.live === null && h("p.soft", {}, `By the desired state; live rules were not read: ${trace.unread}.`));
  }
}

/** Whether the kernel does what the desired state says, where it could be asked. */
function agreement({ agree }) {
  if (agree === null) return null;
  return h("span.badge", {}, mark(agree ? "ok" : "none"), agree ? "svcplane's live rules agree" : "the live rules differ");
}

const WIDTH = 168;
const GAP = 42;

function draw(all, trace, tone) {
  const delivers = trace.verdict.split(", ").includes("deliver");  // to some endpoint: those that are cut off are marked
  const steps = all.filter((step) => step.kind !== "verdict" || !delivers);
  const ends = delivers ? trace.shares.slice(0, 8) : [];
  const cut = new Set(trace.blocked.filter((one) => one.sure).map((one) => one.endpoint));
  const tall = Math.max(110, ends.length * 46 + 20);
  const width = steps.length * (WIDTH + GAP) + (ends.length ? WIDTH + 20 : 0);
  const middle = tall / 2;
  const parts = [];
  steps.forEach((step, index) => {
    const x = index * (WIDTH + GAP);
    const last = index === steps.length - 1;
    if (!last) parts.push(arrow(x + WIDTH, middle, x + WIDTH + GAP, middle, steps[index + 1].kind === "verdict" ? tone : "ok"));
    parts.push(station(x, middle, step.kind, step.title, step.text, step.kind === "verdict" ? tone : ""));
  });
  const from = steps.length * (WIDTH + GAP) - GAP;
  ends.forEach((end, index) => {
    const y = (tall * (index + 0.5)) / ends.length;
    const kind = cut.has(end.endpoint) ? "none" : "ok";
    parts.push(arrow(from, middle, from + GAP, y, kind, `${(end.probability * 100).toFixed(0)}%`));
    parts.push(station(from + GAP, y, "", end.pod || end.endpoint, end.endpoint, kind, 40));
  });
  const said = all.map((step) => `${step.title}: ${step.text}`).join("; ");
  return svg("svg.diagram.way", { viewBox: `-2 0 ${width + 4} ${tall}`, width: width + 4, height: tall, role: "img", "aria-label": said }, parts);
}

function station(x, y, kind, title, text, tone, height = 84) {
  const clip = (line, room) => (line.length > room ? `${line.slice(0, room - 1)}…` : line);
  const lines = wrap(text, 25, height > 50 ? 2 : 1);
  const top = y - height / 2;
  const first = kind ? top + 38 : top + 17;
  return svg(`g.station${tone ? `.${tone}` : ""}`, {}, svg("title", {}, `${title}: ${text}`),
    svg("rect", { x, y: top, width: WIDTH, height, rx: 8 }),
    kind && svg("text.kind", { x: x + 12, y: top + 19 }, kind.toUpperCase()),
    svg("text.name", { x: x + 12, y: first }, clip(title, 21)),
    lines.map((line, index) => svg("text.under", { x: x + 12, y: first + 16 + index * 14 }, line)));
}

function wrap(text, room, most) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if ((lines.at(-1) + word).length > room && lines.at(-1)) lines.push("");
    lines[lines.length - 1] += `${lines.at(-1) ? " " : ""}${word}`;
  }
  if (lines.length > most) lines[most - 1] = `${lines[most - 1].slice(0, room - 1)}…`;
  return lines.slice(0, most);
}

function arrow(ax, ay, bx, by, kind, label = "") {
  const half = (ax + bx) / 2;
  return [svg(`path.edge.${kind}`, { d: `M${ax},${ay} C${half},${ay} ${half},${by} ${bx - 5},${by}` }),
    svg(`path.head.${kind}`, { d: `M${bx - 7},${by - 4} L${bx},${by} L${bx - 7},${by + 4} z` }),
    label && svg("text.under", { x: bx - 10, y: by > ay ? by + 14 : by - 6, "text-anchor": "end" }, label)].filter(Boolean);
}
