// Events of the cluster, the newest first.

import { age, h, mark } from "./dom.js";
import { VirtualList } from "./list.js";

const when = (event) => event.lastTimestamp || event.eventTime || event.metadata.creationTimestamp || "";

export class EventsView {
  constructor(cluster) {
    this.cluster = cluster;
    cluster.follow("events", true);
    this.search = h("input", { id: "events-search", type: "search", placeholder: "reason, object, message", oninput: () => this.update() });
    this.warnings = h("input", { id: "events-warnings", type: "checkbox", onchange: () => this.update() });
    this.count = h("span.soft", { role: "status" });
    this.list = new VirtualList({ rowHeight: 52, row, id: (event) => event.metadata.uid, label: "Events", chosen: () => {} });
    this.element = h("article.page.full", {}, h("h1", {}, "Events"),
      h("div.line", {}, h("label", { for: "events-search" }, "Search"), this.search, this.warnings,
        h("label", { for: "events-warnings" }, "only warnings"), this.count), this.list.element);
  }

  close() { this.cluster.follow("events", false); }

  update() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter((word) => word);
    const found = [...this.cluster.events.values()].filter((event) => {
      if (this.warnings.checked && event.type !== "Warning") return false;
      const text = `${event.metadata.namespace}/${event.involvedObject.name} ${event.involvedObject.kind} ${event.reason} ${event.message}`.toLowerCase();
      return words.every((word) => text.includes(word));
    }).sort((a, b) => (when(a) < when(b) ? 1 : -1));
    this.list.show(found);
    this.count.textContent = `${found.length} ${found.length === 1 ? "event" : "events"}`;
  }
}

function row(event) {
  const { kind, namespace, name } = event.involvedObject;
  const times = event.count > 1 ? ` ×${event.count}` : "";
  return [mark(event.type === "Warning" ? "some" : "ok"),
    h("span.match", {}, h("b", {}, `${event.reason}${times}`), h("small", {}, `${kind} ${namespace ? `${namespace}/` : ""}${name}`)),
    h("span.does", {}, h("span", { title: event.message }, event.message)), h("span.count", {}, age(when(event)))];
}
