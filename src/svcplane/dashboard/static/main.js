// The frame: login, navigation, the list of Services beside every view.

import { ApiError, get, recall, remember } from "./api.js";
import { Cluster } from "./cluster.js";
import { h, mark } from "./dom.js";
import { EventsView } from "./events.js";
import { VirtualList } from "./list.js";
import { MapView } from "./map.js";
import { RulesView } from "./rules.js";
import { ServiceView } from "./service.js";
import { TraceView } from "./trace.js";
import { Traffic } from "./traffic.js";

const root = document.getElementById("root");
const VIEWS = [["map", "Map"], ["trace", "Trace"], ["rules", "Rules"], ["events", "Events"]];
const THEMES = ["auto", "light", "dark"];

function setTheme(theme) {
  localStorage.setItem("svcplane-theme", theme);
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

function login(message = "") {
  const input = h("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false", required: true });
  const problem = h("p.problem", { role: "alert" }, message);
  const enter = async (event) => {
    event.preventDefault();
    remember(input.value.trim());
    try {
      await get("/api");
      begin();
    } catch (error) {
      remember("");
      problem.textContent = error instanceof ApiError && error.code === 401
        ? "The API server does not know this token." : error.message;
      input.select();
    }
  };
  root.replaceChildren(h("main.login", {}, h("form", { onsubmit: enter },
    h("img", { src: "/console/static/icon.svg", alt: "", width: "48", height: "48" }),
    h("h1", {}, "svcplane"),
    h("p", {}, "Sign in with a bearer token of the API server, as in your kubeconfig."),
    h("label", { for: "token" }, "Token"), input, problem,
    h("button.primary", { type: "submit" }, "Sign in"))));
  input.focus();
}

class Frame {
  constructor(cluster) {
    this.cluster = cluster;
    this.traffic = new Traffic(cluster);
    this.words = "";
    this.namespace = "";
    this.onlyProblems = false;
    this.selectedKey = "";
    this.view = null;
    this.build();
    cluster.subscribe(() => this.update());
    addEventListener("hashchange", () => this.route());
    addEventListener("keydown", (event) => this.shortcut(event));
    this.route();
  }

  build() {
    this.filter = h("input.filter", { type: "search", placeholder: "Filter: name, IP, port, label", "aria-label": "Filter Services",
      "aria-keyshortcuts": "/", oninput: () => { this.words = this.filter.value.toLowerCase(); this.refilter(); } });
    this.filter.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") { this.list.element.focus(); this.list.key(event); }
    });
    this.spaces = h("select", { "aria-label": "Namespace", onchange: () => { this.namespace = this.spaces.value; this.refilter(); } });
    this.problems = h("button.chip", { type: "button", "aria-pressed": "false", onclick: () => {
      this.onlyProblems = !this.onlyProblems;
      this.problems.setAttribute("aria-pressed", String(this.onlyProblems));
      this.refilter();
    } });
    this.list = new VirtualList({ rowHeight: 48, row: (one) => this.row(one), id: (one) => one.key, label: "Services",
      chosen: (one, opened) => (opened ? this.open(one.key) : this.select(one.key)) });
    this.shown = h("span.soft", { role: "status" });
    this.status = h("span.status", { role: "status" });
    this.links = VIEWS.map(([name, title]) => h("a", { href: `#/${name}` }, title));
    this.main = h("main", { id: "main", tabindex: "-1" });
    this.drawer = h("button.drawer", { type: "button", "aria-expanded": "false", "aria-controls": "services", onclick: () => this.unfold() }, "Services");
    this.theme = h("button.quiet", { type: "button", onclick: () => this.nextTheme() });
    this.tellTheme();
    root.replaceChildren(
      h("a.skip", { href: "#main", onclick: (event) => { event.preventDefault(); this.main.focus(); } }, "Skip to content"),
      h("header", {}, h("a.brand", { href: "#/map", "aria-label": "svcplane" }, h("img", { src: "/console/static/icon.svg", alt: "", width: "22", height: "22" }), h("span", {}, "svcplane")),
        this.drawer,
        h("nav", { "aria-label": "Views" }, this.links), h("span.grow"), this.status, this.theme,
        h("button.quiet", { type: "button", onclick: () => { remember(""); location.hash = ""; location.reload(); } }, "Sign out")),
      h("div.body", {}, h("aside", { id: "services", "aria-label": "Services" },
        h("div.tools", {}, this.filter, h("div.line", {}, this.spaces, this.problems), this.shown), this.list.element), this.main));
  }

  row(one) {
    const { name, namespace } = one.service.metadata;
    const spec = one.service.spec;
    const where = spec.clusterIP === "None" ? "headless" : spec.clusterIP || spec.externalName || "";
    return [mark(one.state), h("span.name", {}, h("b", {}, name), h("small", {}, `${namespace} · ${where}${one.ports.length ? `:${one.ports.join(",")}` : ""}`)),
      h("span.count", { title: "ready / all endpoints" }, one.state === "idle" ? "–" : `${one.ready}/${one.endpoints.length}`)];
  }

  /** On a narrow window the list of Services lies over the view, and is folded away. */
  unfold(open = this.drawer.getAttribute("aria-expanded") !== "true") {
    this.drawer.setAttribute("aria-expanded", String(open));
    document.getElementById("services").classList.toggle("open", open);
    if (open) this.filter.focus();
  }

  nextTheme() {
    const now = document.documentElement.dataset.theme ?? "auto";
    setTheme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
    this.tellTheme();
    this.view?.update();
  }

  tellTheme() {
    const now = document.documentElement.dataset.theme ?? "auto";
    this.theme.textContent = { auto: "◑", light: "☀", dark: "☾" }[now];
    this.theme.setAttribute("aria-label", `Colours: ${now}`);
    this.theme.title = `Colours: ${now}`;
  }

  shortcut(event) {
    if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      this.unfold(true);
      this.filter.focus();
    }
    else if ("1234".includes(event.key)) location.hash = `#/${VIEWS[Number(event.key) - 1][0]}`;
    else if (event.key === "Escape" && location.hash !== "#/map") location.hash = "#/map";
    else return;
    event.preventDefault();
  }

  // -- what is shown --------------------------------------------------------------------------------------------

  filtered() {
    if (this.cache && this.cacheOf === this.cluster.generation) return this.cache;
    const words = this.words.split(/\s+/).filter((word) => word);
    this.cacheOf = this.cluster.generation;
    this.cache = this.cluster.sorted.filter((one) =>
      (!this.namespace || one.service.metadata.namespace === this.namespace)
      && (!this.onlyProblems || one.state === "none" || one.state === "some")
      && words.every((word) => one.text.includes(word)));
    return this.cache;
  }

  refilter() {
    this.cache = null;
    this.update();
  }

  update() {
    if (this.listOf !== this.filtered()) {
      this.listOf = this.filtered();
      this.list.show(this.listOf);
      const wrong = this.cluster.sorted.filter((one) => one.state === "none" || one.state === "some").length;
      this.problems.textContent = `${wrong} with problems`;
      this.showSpaces();
    }
    this.tellCount();
    this.tellStatus();
    this.view?.update();
  }

  tellCount() {
    const [all, shown] = [this.cluster.sorted.length, this.listOf.length];
    const text = !this.cluster.synced ? "loading …" : shown === all ? `${all} Services` : `${shown} of ${all} Services`;
    if (this.shown.textContent !== text) this.shown.textContent = text;
  }

  showSpaces() {
    const names = [...new Set(this.cluster.sorted.map((one) => one.service.metadata.namespace))].sort();
    if (names.join() === this.spaceNames) return;
    this.spaceNames = names.join();
    this.spaces.replaceChildren(h("option", { value: "" }, "all namespaces"), ...names.map((name) => h("option", { value: name }, name)));
    this.spaces.value = this.namespace;
  }

  tellStatus() {
    const states = [...this.cluster.states].filter(([kind]) => this.cluster.wanted.has(kind));
    if (states.some(([, state]) => state === 401)) return login("Your token is no longer valid.");
    const denied = states.filter(([, state]) => state === 403).map(([kind]) => kind);
    const lost = states.filter(([, state]) => state !== "live" && state !== "listed" && state !== 403);
    const [kind, text] = lost.length ? ["none", "reconnecting"] : denied.length ? ["some", `not allowed: ${denied.join(", ")}`]
      : this.cluster.synced ? ["ok", "live"] : ["idle", "loading"];
    if (this.status.dataset.state !== text) {
      this.status.dataset.state = text;
      this.status.replaceChildren(mark(kind), text);
      this.status.title = lost.map(([name]) => this.cluster.messages.get(name)).join("; ");
    }
    return undefined;
  }

  select(key) {
    this.selectedKey = key;
    this.list.select(key);
    this.view?.update();
  }

  open(key) {
    location.hash = `#/service/${key}`;
  }

  route() {
    const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
    const [name, ...rest] = path.split("/").map(decodeURIComponent);
    const asked = new URLSearchParams(query ?? "");
    this.view?.close();
    this.unfold(false);
    if (name === "service" && rest.length === 2) {
      this.select(rest.join("/"));
      this.view = new ServiceView(this.cluster, this.traffic, rest[0], rest[1]);
    } else if (name === "trace") this.view = new TraceView(this.cluster, asked);
    else if (name === "rules") this.view = new RulesView(this.cluster, asked);
    else if (name === "events") this.view = new EventsView(this.cluster);
    else {
      this.view = new MapView(this.cluster, this.traffic, { filtered: () => this.filtered(), selected: () => this.selectedKey,
        select: (key) => this.select(key), open: (key) => this.open(key) });
    }
    VIEWS.forEach(([view], index) => {
      if (view === (name || "map")) this.links[index].setAttribute("aria-current", "page");
      else this.links[index].removeAttribute("aria-current");
    });
    document.title = `${rest.length ? rest.join("/") : (VIEWS.find(([view]) => view === name) ?? VIEWS[0])[1]} – svcplane`;
    this.main.replaceChildren(this.view.element);
    this.view.update();
  }
}

function begin() {
  const cluster = new Cluster();
  cluster.start();
  const frame = new Frame(cluster);
  window.svcplane = { cluster, frame }; // for tests and for the curious
}

setTheme(localStorage.getItem("svcplane-theme") ?? "auto");
if (recall()) begin();
else login();
