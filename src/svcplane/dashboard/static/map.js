// The map: Services on the left, nodes with their Pods on the right, an edge from a Service to each of its endpoints.
// Drawn on a canvas, so that thousands of edges cost milliseconds; the list beside it says the same to a keyboard and
// to a screen reader.

import { h, mark } from "./dom.js";
import { drawEdges, Moving } from "./edges.js";
import { number, said } from "./traffic.js";

const PAD = 20;
const STATES = { ok: "all endpoints ready", some: "some endpoints not ready", none: "no ready endpoint", idle: "none meant" };

export class MapView {
  constructor(cluster, traffic, { filtered, selected, select, open }) {
    Object.assign(this, { cluster, traffic, filtered, selected, select, open });
    this.canvas = h("canvas", { "aria-hidden": "true" });
    const above = h("canvas.above", { "aria-hidden": "true" });
    this.moving = new Moving(above);
    this.flowing = h("span.flowing");
    this.tip = h("div.tip", { hidden: true });
    this.counts = h("div.counts", { role: "status" });
    this.hover = null;
    this.hits = [];
    this.element = h("section.map", { "aria-label": "Map of Services, Pods and nodes" },
      h("div.stage", {}, this.canvas, above, this.tip),
      h("footer.legend", {},
        ...Object.entries(STATES).map(([state, text]) => h("span", {}, mark(state), text)), this.flowing, this.counts));
    this.canvas.addEventListener("mousemove", (event) => this.point(event));
    this.canvas.addEventListener("mouseleave", () => this.leave());
    this.canvas.addEventListener("click", (event) => this.click(event));
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.element);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.recolour = () => this.draw());
    this.leaveTraffic = traffic.follow(() => this.draw());
  }

  close() {
    this.observer.disconnect();
    this.scheme.removeEventListener("change", this.recolour);
    this.leaveTraffic();
    this.moving.stop();
  }

  update() { this.draw(); }

  colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(`--${name}`).trim();
    return Object.fromEntries(["ok", "some", "none", "idle", "text", "soft", "line", "panel", "accent", "edge", "flow", "calm"].map((name) => [name, of(name)]));
  }

  // -- layout ---------------------------------------------------------------------------------------------------

  layout(width, height) {
    const services = this.filtered();
    const split = Math.max(Math.min(220, width * 0.4), Math.min(width * 0.42, 520));
    const room = height - 2 * PAD - 22;
    const named = services.length * 26 <= Math.max(26, room);
    const boxes = named ? this.rows(services, split, room) : this.grid(services, split, height);
    return { services: boxes, named, ...this.places(split + Math.min(named ? 160 : 90, width * 0.13), width, height) };
  }

  /** Below each other, with more air where there is room. */
  rows(services, split, room) {
    const step = Math.max(26, Math.min(38, room / services.length));
    return services.map((summary, index) => ({
      summary, x: PAD, y: PAD + 22 + index * step, w: split - PAD, h: step - 6,
    }));
  }

  grid(services, split, height) {
    const [size, columns] = fit(services.length, split - PAD, height - 2 * PAD - 22);
    return services.map((summary, index) => ({
      summary, x: PAD + (index % columns) * size, y: PAD + 22 + Math.floor(index / columns) * size, w: size - 3, h: size - 3,
    }));
  }

  /** A panel for each node, Pods in it as cells; Pods without a node in a panel of their own. */
  places(left, width, height) {
    const groups = new Map([...this.cluster.nodes.values()].map((node) => [node.metadata.name, []]));
    const wanted = this.interesting();
    for (const [key, pod] of this.cluster.pods) {
      if (wanted && !wanted.has(key)) continue;
      if (!groups.has(pod.node)) groups.set(pod.node, []);
      groups.get(pod.node).push({ key, pod });
    }
    const names = [...groups.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    for (const inside of groups.values()) inside.sort((a, b) => (a.key < b.key ? -1 : 1));
    return this.chips(names, groups, left, width, height) ?? this.cells(names, groups, left, width, height);
  }

  /** Nodes below each other, each Pod with its name, in as few columns as fit; null where there is no room for that. */
  chips(names, groups, left, width, height) {
    const [w, gap] = [width - left - PAD, 14];
    const most = Math.max(1, Math.floor((w - 16) / 150));
    const tall = (name, across) => 44 + Math.max(1, Math.ceil(groups.get(name).length / across)) * 30;
    let across = 1;
    while (across <= most && names.reduce((sum, name) => sum + tall(name, across) + gap, 0) > height - 2 * PAD) across += 1;
    if (across > most) return null;
    const room = (w - 16) / across;
    const nodes = [];
    const pods = new Map();
    let y = PAD;
    for (const name of names) {
      const inside = groups.get(name);
      const h = tall(name, across);
      nodes.push({ name, node: this.cluster.nodes.get(`/${name}`), count: inside.length, x: left, y, w, h });
      inside.forEach(({ key, pod }, at) => pods.set(key, {
        key, pod, named: true, x: left + 8 + (at % across) * room + 4, y: y + 36 + Math.floor(at / across) * 30, w: room - 8, h: 24,
      }));
      y += h + gap;
    }
    return { nodes, pods };
  }

  /** Nodes as panels in a grid, each Pod a cell. */
  cells(names, groups, left, width, height) {
    const columns = Math.max(1, Math.min(names.length, Math.floor((width - left - PAD) / 120), Math.ceil(Math.sqrt(names.length * 1.2))));
    const lines = Math.ceil(names.length / columns) || 1;
    const gap = 12;
    const w = (width - left - PAD - gap * (columns - 1)) / columns;
    const h = (height - 2 * PAD - gap * (lines - 1)) / lines;
    const nodes = [];
    const pods = new Map();
    names.forEach((name, index) => {
      const x = left + (index % columns) * (w + gap);
      const y = PAD + Math.floor(index / columns) * (h + gap);
      const inside = groups.get(name);
      const [size, across] = fit(inside.length, w - 20, Math.max(20, h - 46));
      inside.forEach(({ key, pod }, at) => pods.set(key, {
        key, pod, x: x + 10 + (at % across) * size, y: y + 36 + Math.floor(at / across) * size, w: size - 3, h: size - 3,
      }));
      nodes.push({ name, node: this.cluster.nodes.get(`/${name}`), count: inside.length, x, y, w, h });
    });
    return { nodes, pods };
  }

  /** With a filter, only the Pods behind what is left; else all. */
  interesting() {
    const services = this.filtered();
    if (services.length === this.cluster.sorted.length) return null;
    return new Set(services.flatMap((summary) => summary.endpoints.map((one) => one.pod)));
  }

  // -- drawing --------------------------------------------------------------------------------------------------

  draw() {
    const began = performance.now();
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    if (!width || !height) return;
    const ratio = devicePixelRatio || 1;
    for (const canvas of [this.canvas, this.moving.canvas]) {
      const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
      if (canvas.width !== w || canvas.height !== h) {
        Object.assign(canvas, { width: w, height: h });
        Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
      }
    }
    const colour = this.colours();
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const plan = this.layout(width, height);
    const focus = this.hover?.summary?.key ?? (this.hover?.pod ? null : this.selected());
    const focusPod = this.hover?.key && this.hover.pod ? this.hover.key : null;
    this.drawNodes(pen, plan, colour);
    const busy = drawEdges(pen, plan, colour, { focus, focusPod, traffic: this.traffic });
    this.moving.show(busy, colour, ratio);
    this.rates = podRates(busy);
    this.drawPods(pen, plan, colour, focus, focusPod);
    this.drawServices(pen, plan, colour, focus, focusPod);
    this.hits = [...plan.services, ...plan.pods.values()];
    const shown = plan.services.length;
    const text = `${shown} ${shown === 1 ? "Service" : "Services"}, ${plan.pods.size} Pods, ${plan.nodes.length} nodes`;
    if (this.counts.textContent !== text) this.counts.textContent = text;
    this.tellTraffic();
    this.canvas.dataset.busy = busy.length;
    this.canvas.dataset.drawMs = (performance.now() - began).toFixed(1);
    this.canvas.dataset.services = shown;
  }

  tellTraffic() {
    const { known, total, problem } = this.traffic;
    const text = known ? `traffic: ${number(total.new)} new/s, ${total.active} active` : problem ? "traffic: not known" : "";
    if (this.flowing.textContent !== text) this.flowing.textContent = text;
    this.flowing.title = problem;
  }

  drawNodes(pen, plan, colour) {
    pen.textBaseline = "middle";
    for (const { name, node, count, x, y, w, h } of plan.nodes) {
      pen.fillStyle = colour.panel;
      pen.strokeStyle = colour.line;
      pen.lineWidth = 1;
      pen.beginPath();
      pen.roundRect(x + 0.5, y + 0.5, w - 1, h - 1, 10);
      pen.fill();
      pen.stroke();
      pen.fillStyle = name ? (node?.ready ? colour.ok : colour.none) : colour.idle;
      pen.beginPath();
      pen.arc(x + 16, y + 18, 4, 0, 7);
      pen.fill();
      pen.fillStyle = colour.text;
      pen.font = "600 12px system-ui, sans-serif";
      const text = w < 160 ? String(count) : `${count} ${count === 1 ? "Pod" : "Pods"}`;
      const taken = pen.measureText(text).width;
      pen.fillText(clip(pen, name || "no node yet", w - 46 - taken), x + 26, y + 18.5);
      pen.fillStyle = colour.soft;
      pen.font = "11px system-ui, sans-serif";
      pen.fillText(text, x + w - 12 - pen.measureText(text).width, y + 18.5);
    }
    pen.fillStyle = colour.soft;
    pen.font = "600 11px system-ui, sans-serif";
    pen.fillText("SERVICES", PAD, PAD + 6);
  }

  drawPods(pen, plan, colour, focus, focusPod) {
    const behind = new Set(focus ? this.cluster.summaries.get(focus)?.endpoints.map((one) => one.pod) : []);
    for (const { key, pod, named, x, y, w, h } of plan.pods.values()) {
      const here = behind.has(key) || key === focusPod;
      pen.globalAlpha = (focus || focusPod) && !here ? 0.35 : 1;
      if (named) {
        this.drawChip(pen, colour, key, pod, x, y, w, h, here);
        continue;
      }
      pen.beginPath();
      pen.roundRect(x, y, w, h, Math.min(4, w / 3));
      if (pod.ready) {
        pen.fillStyle = colour.calm;
        pen.fill();
      } else {
        pen.strokeStyle = pod.phase === "Succeeded" ? colour.idle : colour.none;
        pen.lineWidth = Math.min(2, w / 4);
        pen.stroke();
      }
      if (here) outline(pen, colour, x, y, w, h);
    }
    pen.globalAlpha = 1;
  }

  drawChip(pen, colour, key, pod, x, y, w, h, here) {
    pen.beginPath();
    pen.roundRect(x + 0.5, y + 0.5, w - 1, h - 1, 6);
    pen.fillStyle = colour.panel;
    pen.fill();
    pen.strokeStyle = here ? colour.accent : colour.line;
    pen.lineWidth = here ? 2 : 1;
    pen.stroke();
    pen.beginPath();
    pen.arc(x + 12, y + h / 2, 4, 0, 7);
    pen.fillStyle = colour.ok;
    pen.strokeStyle = pod.phase === "Succeeded" ? colour.idle : colour.none;
    pen.lineWidth = 2;
    if (pod.ready) pen.fill();
    else pen.stroke();
    const rate = tell(this.rates.get(key));
    pen.font = "600 11px system-ui, sans-serif";
    const taken = rate ? pen.measureText(rate).width + 10 : 0;
    pen.fillStyle = colour.flow;
    if (rate) pen.fillText(rate, x + w - taken, y + h / 2 + 1);
    pen.font = "12px system-ui, sans-serif";
    pen.fillStyle = colour.text;
    pen.fillText(clip(pen, key.split("/")[1], w - 30 - taken), x + 22, y + h / 2 + 1);
  }

  drawServices(pen, plan, colour, focus, focusPod) {
    for (const { summary, x, y, w, h } of plan.services) {
      const here = summary.key === focus || (focusPod && summary.endpoints.some((one) => one.pod === focusPod));
      pen.globalAlpha = (focus || focusPod) && !here ? 0.45 : 1;
      if (plan.named) this.drawNamed(pen, colour, summary, x, y, w, h, here);
      else {
        pen.beginPath();
        pen.roundRect(x, y, w, h, Math.min(4, w / 3));
        pen.fillStyle = summary.state === "ok" ? colour.calm : colour[summary.state];
        if (summary.state === "none" || summary.state === "idle") {
          pen.strokeStyle = pen.fillStyle;
          pen.lineWidth = Math.min(2.5, w / 3);
          pen.stroke();
        } else pen.fill();
        if (here) outline(pen, colour, x, y, w, h);
      }
    }
    pen.globalAlpha = 1;
  }

  drawNamed(pen, colour, summary, x, y, w, h, here) {
    pen.beginPath();
    pen.roundRect(x + 0.5, y + 0.5, w - 1, h - 1, 6);
    pen.fillStyle = colour.panel;
    pen.fill();
    pen.strokeStyle = here ? colour.accent : colour.line;
    pen.lineWidth = here ? 2 : 1;
    pen.stroke();
    pen.fillStyle = colour[summary.state];
    pen.beginPath();
    pen.roundRect(x + 6, y + h / 2 - 5, 10, 10, summary.state === "ok" ? 5 : 2);
    if (summary.state === "ok" || summary.state === "some") pen.fill();
    else {
      pen.strokeStyle = colour[summary.state];
      pen.lineWidth = 2;
      pen.stroke();
    }
    const { name, namespace } = summary.service.metadata;
    const count = summary.state === "idle" ? "–" : `${summary.ready}/${summary.endpoints.length}`;
    pen.font = "11px ui-monospace, monospace";
    let right = pen.measureText(count).width + 8;
    pen.fillStyle = colour.soft;
    pen.fillText(count, x + w - right, y + h / 2 + 1);
    const rate = tell(this.traffic.of(summary.key));
    if (rate) {
      pen.font = "600 11px system-ui, sans-serif";
      right += pen.measureText(rate).width + 10;
      pen.fillStyle = colour.flow;
      pen.fillText(rate, x + w - right, y + h / 2 + 1);
    }
    pen.font = "600 12px system-ui, sans-serif";
    pen.fillStyle = colour.text;
    const shown = clip(pen, name, w - 40 - right);
    pen.fillText(shown, x + 24, y + h / 2 + 1);
    const after = x + 32 + pen.measureText(shown).width;
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = colour.soft;
    const room = x + w - right - after - 8;
    if (room > 40) pen.fillText(clip(pen, namespace, room), after, y + h / 2 + 1);
  }

  // -- pointing -------------------------------------------------------------------------------------------------

  at(event) {
    const { offsetX, offsetY } = event;
    return this.hits.find(({ x, y, w, h }) => offsetX >= x - 1 && offsetX <= x + w + 2 && offsetY >= y - 1 && offsetY <= y + h + 2) ?? null;
  }

  point(event) {
    const hit = this.at(event);
    this.canvas.classList.toggle("pointing", Boolean(hit));
    if (hit) this.explain(hit, event);
    else this.tip.hidden = true;
    const name = (one) => one?.summary?.key ?? one?.key ?? "";
    if (name(hit) !== name(this.hover)) {
      this.hover = hit;
      this.draw();
    }
  }

  explain(hit, event) {
    const lines = hit.summary
      ? [h("strong", {}, hit.summary.key), `${hit.summary.service.spec.type} ${hit.summary.service.spec.clusterIP ?? ""}`,
        `${hit.summary.ready} of ${hit.summary.endpoints.length} endpoints ready`, said(this.traffic.of(hit.summary.key))]
      : [h("strong", {}, hit.key), `${hit.pod.phase}${hit.pod.ready ? ", ready" : ", not ready"}`, hit.pod.ip];
    this.tip.replaceChildren(...lines.filter(Boolean).map((line) => h("div", {}, line)));
    this.tip.hidden = false;
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    this.tip.style.left = `${Math.min(event.offsetX + 14, clientWidth - this.tip.offsetWidth - 8)}px`;
    this.tip.style.top = `${Math.min(event.offsetY + 14, clientHeight - this.tip.offsetHeight - 8)}px`;
  }

  leave() {
    this.hover = null;
    this.tip.hidden = true;
    this.draw();
  }

  click(event) {
    const hit = this.at(event);
    if (hit?.summary) this.open(hit.summary.key);
    else if (hit?.pod) {
      const behind = this.filtered().find((summary) => summary.endpoints.some((one) => one.pod === hit.key));
      if (behind) this.select(behind.key);
    } else this.select("");
  }
}

/** The largest square cells of which `count` fit: their size, and how many stand beside each other. */
function fit(count, width, height) {
  let size = 24;
  while (size > 4 && Math.floor(width / size) * Math.floor(height / size) < count) size -= 1;
  return [size, Math.max(1, Math.floor(width / size))];
}

/** Pod -> what all Services bring it. */
function podRates(busy) {
  const rates = new Map();
  for (const { pod, flow } of busy) {
    const sum = rates.get(pod) ?? { new: 0, active: 0 };
    rates.set(pod, { new: sum.new + flow.new, active: sum.active + flow.active });
  }
  return rates;
}

function tell(flow) {
  if (!flow || !(flow.new || flow.active)) return "";
  return flow.new ? `${number(flow.new)}/s` : `${flow.active} open`;
}

function clip(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  let short = text;
  while (short.length > 1 && pen.measureText(`${short}…`).width > width) short = short.slice(0, -1);
  return `${short}…`;
}

function outline(pen, colour, x, y, w, h) {
  pen.strokeStyle = colour.accent;
  pen.lineWidth = 2;
  pen.beginPath();
  pen.roundRect(x - 2.5, y - 2.5, w + 5, h + 5, 5);
  pen.stroke();
}
