// A run's head and its warnings: rendered by the service, kept up to date here.

import { fragment, key } from "./api.js";
import { atMost, fill, notice, renew } from "./dom.js";

const LEAST_MS = 1000;
const RETRY_MS = 3000;

export class Top {
  /** `act(action)` is called for a button of the head, `show(metric)` leads to the panel of a metric. */
  constructor(element, stale, jobId, { act, show }) {
    Object.assign(this, { element, stale });
    this.loading = null; // the reading that goes on now
    this.path = `/fragments/jobs/${jobId}`;
    element.addEventListener("click", ({ target }) => {
      const { action, metric } = target.closest("button")?.dataset ?? {};
      if (action) act(action);
      if (metric) show(metric);
    });
  }

  soon = atMost(LEAST_MS, () => this.load());

  /** What the document came with; without it, or with a key by which it may be another, what the service says now. */
  async open() {
    if (this.parts().length && !key()) return;
    fill(this.element, [...(await fragment(this.path)).childNodes]);
  }

  /** One reading at a time, so that none is overtaken by an older one; what happens meanwhile is read by one more. */
  load() {
    this.asked = true;
    this.loading ??= this.read().finally(() => (this.loading = null));
    return this.loading;
  }

  async read() {
    while (this.asked) {
      this.asked = false;
      try {
        const fresh = await fragment(this.path);
        for (const part of this.parts()) renew(part, fresh.querySelector(`[data-part="${part.dataset.part}"]`));
        fill(this.stale);
      } catch (error) {
        fill(this.stale, notice("bad", `The run's state could not be read: ${error.message} Trying again…`));
        setTimeout(() => this.soon(), RETRY_MS);
      }
    }
  }

  parts() {
    return [...this.element.querySelectorAll("[data-part]")];
  }
}
