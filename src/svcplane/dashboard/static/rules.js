// The rules of a node, searchable, with what each is for: what its kernel holds, and what its proxy wants there.

import { get } from "./api.js";
import { h, mark } from "./dom.js";
import { VirtualList } from "./list.js";

const TONES = { deliver: "ok", reject: "none", drop: "none" };
const AGAIN_MS = { kernel: 5000, wanted: 1000 };
const TEXTS = {
  kernel: "What the kernel of the node holds now, read by its proxy: each rule, map element or virtual server, and what it is for.",
  wanted: "What the node's proxy has to program, in words that hold for every mode: one rule for each address and port of a Service.",
};

export class RulesView {
  constructor(cluster, asked) {
    this.cluster = cluster;
    this.rules = [];
    this.wish = asked.get("node") ?? "";
    this.node = h("select", { id: "rules-node", onchange: () => { this.wish = this.node.value; this.fresh(); } });
    this.which = h("select", { id: "rules-which", onchange: () => this.fresh() },
      h("option", { value: "kernel" }, "in the kernel"), h("option", { value: "wanted" }, "as desired"));
    this.which.value = asked.get("show") === "wanted" ? "wanted" : "kernel";
    this.search = h("input", { id: "rules-search", type: "search", value: asked.get("words") ?? "", placeholder: "address, port, Service, drop …", oninput: () => this.searched() });
    this.count = h("span.soft", { role: "status" });
    this.problem = h("p.problem", { role: "alert", hidden: true });
    this.about = h("p.soft", {}, TEXTS[this.which.value]);
    this.drift = h("div.drift", { "aria-live": "polite" });
    this.list = new VirtualList({ rowHeight: 52, row: (one) => (one.place ? kernelRow(one) : wantedRow(one)),
      id: (one) => (one.place ? `${one.family} ${one.place} ${one.rule}` : `${one.service} ${one.kind} ${one.match}`), label: "Rules",
      chosen: (one, opened) => { if (opened && one.service) location.hash = `#/service/${one.service.split(":")[0]}`; } });
    this.element = h("article.page.full", {}, h("h1", {}, "Rules of a node"), this.about,
      h("div.line", {}, h("label", { for: "rules-node" }, "Node"), this.node, h("label", { for: "rules-which" }, "Show"), this.which,
        h("label", { for: "rules-search" }, "Search"), this.search, this.count),
      this.problem, this.drift, this.list.element);
  }

  close() { clearTimeout(this.timer); clearTimeout(this.typing); this.closed = true; }

  update() {
    const cluster = this.cluster;
    if (!cluster.synced) return;
    const names = [...cluster.nodes.values()].map((node) => node.metadata.name).sort();
    if (names.join() !== this.names) {
      this.names = names.join();
      this.node.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
      if (names.includes(this.wish)) this.node.value = this.wish;
    }
    if (cluster.generation === this.generation || this.timer) return;
    this.timer = setTimeout(() => { this.timer = 0; this.ask(); }, this.generation === undefined ? 0 : AGAIN_MS[this.which.value]);
    this.generation = cluster.generation;
  }

  /** Another node, or another kind of rules. */
  fresh() {
    this.rules = [];
    this.about.textContent = TEXTS[this.which.value];
    this.ask();
  }

  searched() {
    if (this.which.value === "wanted") return this.filter();
    clearTimeout(this.typing);  // the node looks for the words: it may have more rules than a page should hold
    this.typing = setTimeout(() => this.ask(), 250);
  }

  async ask() {
    if (!this.node.value) return;
    const asked = [this.node.value, this.which.value, this.search.value].join("\n");
    this.asked = asked;
    const [node, which, words] = asked.split("\n");
    const name = encodeURIComponent(node);
    try {
      if (which === "kernel") {
        const found = await get(`/console/api/kernel/${name}?${new URLSearchParams({ words })}`);
        if (!this.closed && asked === this.asked) this.showKernel(found);
      } else {
        const found = await get(`/console/api/rules/${name}`);
        if (!this.closed && asked === this.asked) this.showWanted(found);
      }
    } catch (error) {
      if (this.closed || asked !== this.asked) return;
      this.problem.textContent = error.message;
      this.problem.hidden = false;
      if (which === "kernel") {  // an agent that does not tell, or no right to ask it
        this.which.value = "wanted";
        await this.fresh();
        this.problem.textContent = `The kernel's rules cannot be read: ${error.message}. Shown is what is desired.`;
        this.problem.hidden = false;
      }
    }
  }

  showKernel({ mode, total, found, rules, drift }) {
    this.problem.hidden = true;
    this.rules = rules;
    this.list.show(rules);
    const shown = found > rules.length ? `, the first ${rules.length} shown` : "";
    this.count.textContent = `${found} of ${total} rules, mode ${mode}${shown}`;
    this.drift.replaceChildren(...(drift.length
      ? [h("p.problem", {}, mark("none"), ` The kernel is not as desired; a repair would do ${drift.length} thing${drift.length === 1 ? "" : "s"}:`),
        h("ul", {}, drift.slice(0, 5).map((one) => h("li", {}, h("span.mono", {}, `${one.verb} ${one.object}`), h("small", {}, ` ${one.reason}`))))]
      : [h("p.soft", {}, mark("ok"), " The kernel is as desired.")]));
  }

  showWanted(found) {
    for (const rule of found) rule.words = [rule.service, rule.kind, rule.match, rule.action, rule.purpose, ...rule.endpoints].join(" ").toLowerCase();
    this.rules = found;
    this.problem.hidden = true;
    this.drift.replaceChildren();
    this.filter();
  }

  filter() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter((word) => word);
    const found = this.rules.filter((rule) => words.every((word) => rule.words.includes(word)));
    this.list.show(found);
    this.count.textContent = `${found.length} of ${this.rules.length} rules`;
  }
}

function kernelRow(rule) {
  return [mark(/\b(drop|reject)\b/i.test(rule.rule) ? "none" : "ok"),
    h("span.match", {}, h("b.mono", { title: rule.place }, rule.place), h("small", {}, [rule.family, rule.service].filter(Boolean).join(" · "))),
    h("span.does", {}, h("span.mono", { title: rule.rule }, rule.rule), h("small", {}, rule.purpose))];
}

function wantedRow(rule) {
  const shown = rule.endpoints.slice(0, 4).join(", ") + (rule.endpoints.length > 4 ? ` and ${rule.endpoints.length - 4} more` : "");
  return [mark(TONES[rule.action]), h("span.match", {}, h("b.mono", {}, rule.match), h("small", {}, `${rule.kind} · ${rule.service}`)),
    h("span.does", {}, h("span.mono", {}, `${rule.action}${shown ? ` → ${shown}` : ""}`), h("small", {}, rule.purpose))];
}
