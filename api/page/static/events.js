// What happened to a run, newest first.

import { get } from "./api.js";
import { fill, h } from "./dom.js";
import { clock } from "./words.js";

const SHOWN = 300;

export class Events {
  constructor(job) {
    this.path = `/v1/jobs/${job.id}/events`;
    this.seen = new Map();
    this.only = h("input", { type: "checkbox", id: "warnings-only", onchange: () => this.draw() });
    this.list = h("ol", { class: "events", tabindex: 0, "aria-label": "Events, newest first" });
    this.element = h("div", { class: "card" }, h("label", {}, this.only, " warnings and errors only"), this.list);
    fill(this.list, h("li", { class: "quiet" }, "Loading…"));
  }

  async load() {
    try {
      for (let after = 0, more = true; more; ) {
        const page = await get(this.path, { after, limit: 1000 });
        for (const event of page.data) this.seen.set(event.id, event);
        after = page.data.at(-1)?.id ?? after;
        more = page.has_more;
      }
      this.draw();
    } catch (error) {
      fill(this.list, h("li", { class: "bad" }, `Events could not be read: ${error.message}`));
    }
  }

  add(event) {
    this.seen.set(event.id, event);
    this.draw();
  }

  draw() {
    const events = [...this.seen.values()].filter((event) => !this.only.checked || event.level !== "info").sort((a, b) => b.id - a.id);
    const rows = events.slice(0, SHOWN).map(row);
    const left = events.length > SHOWN ? h("li", { class: "quiet" }, `and ${events.length - SHOWN} older ones`) : null;
    fill(this.list, rows.length ? rows : h("li", { class: "quiet" }, this.only.checked ? "No warnings." : "Nothing has happened yet."), left);
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
