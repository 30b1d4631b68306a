// A run's log: its end, followed as it grows; older lines and a search on demand.

import { get } from "./api.js";
import { h, settled } from "./dom.js";

const LINES = 300;
const KEPT = 5000; // lines in the page
const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class Log {
  constructor(job) {
    this.path = `/v1/jobs/${job.id}/logs`;
    this.end = 0; // byte behind the last line that is shown
    this.last = null; // that line as it was read: perhaps its beginning alone had been written
    this.before = null;
    this.waiting = [];
    this.begun = false;
    this.ready = false;
    this.component = h("select", { id: "component", onchange: () => this.load() }, h("option", {}, "trainer"));
    this.search = h("input", { type: "search", id: "log-search", placeholder: "search", oninput: settled(300, () => this.load()) });
    this.follow = h("input", { type: "checkbox", id: "follow", checked: true, onchange: () => this.toEnd() });
    this.older = h("button", { type: "button", class: "small", hidden: true, onclick: () => this.back() }, "Older lines");
    this.lines = h("pre", { class: "log", tabindex: 0, "aria-label": "The log", onscroll: () => this.scrolled() }, "Loading…");
    this.element = h(
      "div",
      { class: "card" },
      h("div", { class: "row" }, h("label", {}, "Of ", this.component), h("label", {}, "Lines with ", this.search), h("label", {}, this.follow, " follow"), this.older),
      this.lines,
    );
  }

  get isLive() {
    return this.component.value === "trainer" && !this.search.value;
  }

  async load() {
    this.begun = true;
    this.ready = false;
    try {
      const log = await this.read(null);
      const known = new Set([...this.component.options].map((option) => option.value));
      this.component.append(...log.components.filter((name) => !known.has(name)).map((name) => h("option", {}, name)));
      const last = log.lines.at(-1) ?? null;
      if (this.isLive) {
        this.last = last;
        this.end = last ? last.offset + encoder.encode(last.text).length + 1 : 0;
      }
      this.lines.textContent = log.lines.map((line) => `${line.text}\n`).join("") || this.nothing();
      this.isEmpty = log.lines.length === 0;
      this.ready = true;
      for (const [text, end] of this.waiting.splice(0)) this.add(text, end);
      this.toEnd();
    } catch (error) {
      this.lines.textContent = `The log could not be read: ${error.message}`;
    }
  }

  nothing() {
    return this.search.value ? "No line has this." : "Nothing has been written yet.";
  }

  async read(before) {
    const log = await get(this.path, { component: this.component.value, tail: LINES, search: this.search.value, before });
    this.before = log.before;
    this.older.hidden = log.before === null;
    return log;
  }

  async back() {
    const log = await this.read(this.before);
    const height = this.lines.scrollHeight;
    this.lines.textContent = log.lines.map((line) => `${line.text}\n`).join("") + this.lines.textContent;
    this.lines.scrollTop += this.lines.scrollHeight - height;
  }

  /** Text of the stream that ends at byte `end`; what is shown of it already is left out. */
  add(text, end) {
    if (!this.begun) return;
    if (!this.ready) {
      this.waiting.push([text, end]);
      return;
    }
    if (!this.isLive) return;
    const bytes = encoder.encode(text);
    const start = end - bytes.length;
    let shown = this.isEmpty ? "" : this.lines.textContent;
    if (this.last && end > this.last.offset) {
      if (start <= this.last.offset) {
        shown = shown.slice(0, -this.last.text.length - 1);
        this.end = this.last.offset;
      } else if (start < this.end) {
        shown = shown.slice(0, -1); // the stream begins within it: no newline has been written yet
        this.end -= 1;
      }
      this.last = null;
    }
    const known = Math.max(0, this.end - start);
    if (known >= bytes.length) return;
    this.end = end;
    const all = shown + decoder.decode(bytes.slice(known));
    this.isEmpty = false;
    const lines = all.split("\n");
    this.lines.textContent = lines.length > KEPT ? lines.slice(-KEPT).join("\n") : all;
    this.toEnd();
  }

  toEnd() {
    if (this.follow.checked) this.lines.scrollTop = this.lines.scrollHeight;
  }

  /** Scrolling up stops the following; back at the end it goes on. */
  scrolled() {
    this.follow.checked = this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight < 24;
  }
}
