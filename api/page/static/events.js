// What happened to a run, newest first.

import { get } from "./api.js";
import { fill, h } from "./dom.js";
import { clock } from "./words.js";

const SHOWN = 100; // at a time

export class Events {
  constructor(job) {
    this.path = `/v1/jobs/${job.id}/events`;
    this.seen = new Map();
    this.oldest = null; // id from which on older ones are not read yet; null: none are left
    this.begun = false;
    this.only = h("input", { type: "checkbox", id: "warnings-only", onchange: () => this.load() });
    this.list = h("ol", { class: "events", tabindex: 0, "aria-label": "Events, newest first" });
    this.older = h("button", { type: "button", class: "small", hidden: true, onclick: () => this.read() }, "Older events");
    this.element = h("div", { class: "card" }, h("div", { class: "row" }, h("label", {}, this.only, " warnings and errors only"), this.older), this.list);
    fill(this.list, h("li", { class: "quiet" }, "Loading…"));
  }

  async load() {
    this.begun = true;
    this.oldest = null;
    this.seen.clear();
    await this.read();
  }

  /** The newest, or those before what is read already. */
  async read() {
    try {
      const page = await get(this.path, { order: "desc", limit: SHOWN, after: this.oldest, level: this.only.checked ? ["warn", "error"] : [] });
      for (const event of page.data) this.seen.set(event.id, event);
      this.oldest = page.data.at(-1)?.id ?? this.oldest;
      this.older.hidden = !page.has_more;
      this.draw();
    } catch (error) {
      fill(this.list, h("li", { class: "bad" }, `Events could not be read: ${error.message}`));
    }
  }

  /** One of the stream; before anything is read there is no need of it. */
  add(event) {
    if (!this.begun || (this.only.checked && event.level === "info")) return;
    this.seen.set(event.id, event);
    this.draw();
  }

  draw() {
    const rows = [...this.seen.values()].sort((a, b) => b.id - a.id).map(row);
    fill(this.list, rows.length ? rows : h("li", { class: "quiet" }, this.only.checked ? "No warnings." : "Nothing has happened yet."));
  }
}

function row(event) {
  const time = event.reported_at ?? event.created_at;
  const words = event.message || Object.entries(event.data).map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(", ");
  return h(
    "li",
    { class: event.level },
    h("time", { datetime: time }, clock(time)),
    h("span", { class: "tag" }, event.level === "info" ? event.type : `${event.level}: ${event.type}`),
    event.step === null ? null : h("span", { class: "quiet" }, `step ${event.step}`),
    h("span", { class: "words" }, words),
  );
}
