// A list of any length: only the rows in sight are in the document.

import { h } from "./dom.js";

export class VirtualList {
  /** `row(item)` makes the content of a row, `id(item)` names it; `chosen(item, opened)` tells of keys and clicks. */
  constructor({ rowHeight, row, id, label, chosen }) {
    Object.assign(this, { rowHeight, row, id, chosen });
    this.items = [];
    this.cursor = -1;
    this.inner = h("div.rows", { role: "presentation" });
    this.element = h("div.list", { role: "listbox", tabindex: "0", "aria-label": label }, this.inner);
    this.element.addEventListener("scroll", () => this.draw());
    this.element.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  show(items) {
    const current = this.items[this.cursor] && this.id(this.items[this.cursor]);
    this.items = items;
    this.cursor = current ? items.findIndex((item) => this.id(item) === current) : -1;
    this.inner.style.height = `${items.length * this.rowHeight}px`;
    this.draw();
  }

  select(id, scroll = true) {
    this.cursor = this.items.findIndex((item) => this.id(item) === id);
    if (scroll && this.cursor >= 0) this.reveal();
    this.draw();
  }

  reveal() {
    const top = this.cursor * this.rowHeight;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.rowHeight > scrollTop + clientHeight) this.element.scrollTop = top + this.rowHeight - clientHeight;
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.rowHeight) - 1);
    const last = this.items.length - 1;
    const moves = { ArrowDown: this.cursor + 1, ArrowUp: this.cursor - 1, PageDown: this.cursor + page,
      PageUp: this.cursor - page, Home: 0, End: last };
    if (event.key in moves && last >= 0) {
      this.cursor = Math.min(last, Math.max(0, moves[event.key]));
      this.reveal();
      this.draw();
      this.chosen(this.items[this.cursor], false);
    } else if (event.key === "Enter" && this.items[this.cursor]) this.chosen(this.items[this.cursor], true);
    else return;
    event.preventDefault();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.element.scrollTop / this.rowHeight) - 4);
    const count = Math.ceil(this.element.clientHeight / this.rowHeight) + 8;
    const rows = this.items.slice(first, first + count).map((item, offset) => {
      const index = first + offset;
      const row = h("div.row", {
        role: "option",
        id: `row-${this.id(item)}`,
        "aria-selected": String(index === this.cursor),
        "aria-posinset": String(index + 1),
        "aria-setsize": String(this.items.length),
        onclick: () => {
          this.cursor = index;
          this.draw();
          this.chosen(item, true);
        },
      }, this.row(item));
      row.style.top = `${index * this.rowHeight}px`;
      row.style.height = `${this.rowHeight}px`;
      return row;
    });
    this.inner.replaceChildren(...rows);
    const current = this.items[this.cursor];
    if (current) this.element.setAttribute("aria-activedescendant", `row-${this.id(current)}`);
    else this.element.removeAttribute("aria-activedescendant");
  }
}
