// What deserves a look in a run, as the service sees it, each with what to try.

import { get } from "./api.js";
import { fill, h, notice, settled } from "./dom.js";
import { number } from "./words.js";

export class Warnings {
  /** `show(metric)` leads to the panel of a metric. */
  constructor(job, show) {
    this.path = `/v1/jobs/${job.id}/warnings`;
    this.show = show;
    this.told = "";
    this.element = h("section", { id: "warnings", "aria-label": "Warnings", "aria-live": "polite" });
  }

  soon = settled(1500, () => this.load());

  async load() {
    try {
      const { data } = await get(this.path);
      const told = JSON.stringify(data);
      if (told === this.told) return; // what is read, or has the focus, stays
      this.told = told;
      fill(this.element, data.map((each) => this.warning(each)));
    } catch (error) {
      this.told = "";
      fill(this.element, notice("bad", `The warnings could not be read: ${error.message}`));
    }
  }

  warning(each) {
    const times = each.count > 1 ? `, ${number(each.count)} times` : "";
    const place = each.step === null ? "" : each.source === "event" ? `at step ${number(each.step)}${times}` : `step ${number(each.step)}`;
    const look = each.metric ? h("button", { type: "button", class: "small", onclick: () => this.show(each.metric) }, "Show the curve") : null;
    return h(
      "div",
      { class: "notice warn", data: { warning: each.code } },
      h("p", {}, h("b", {}, each.message), place ? h("span", {}, ` (${place})`) : null),
      each.hint || look ? h("p", {}, each.hint ? h("span", {}, h("b", {}, "Try: "), each.hint, " ") : null, look) : null,
    );
  }
}
