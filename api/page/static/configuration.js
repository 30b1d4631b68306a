// What a run was asked for: its spec, and where that differs from the spec of the job it was made from.

import { curl, openai } from "./code.js";
import { copyButton, h } from "./dom.js";

export function configuration(job) {
  const text = JSON.stringify(job.spec, null, 2);
  return h(
    "div",
    { class: "card" },
    h("div", { class: "row" }, copyButton("Copy JSON", () => text), copyButton("Copy as curl", () => curl(job.spec)), copyButton("Copy for OpenAI's client", () => openai(job.spec))),
    h("p", { class: "quiet" }, "Run folder: ", h("code", {}, job.folder)),
    job.parent_id ? difference(job) : null,
    h("pre", { tabindex: 0, "aria-label": "The job spec" }, text),
  );
}

function difference(job) {
  const parent = h("a", { href: `/jobs/${job.parent_id}` }, job.parent_id);
  if (!job.diff?.length) return h("p", { id: "diff" }, "The same as its parent's, ", parent, ".");
  const head = h("tr", {}, ["Field", "Parent", "This job"].map((name) => h("th", { scope: "col" }, name)));
  const value = (each) => h("td", {}, h("code", {}, each === null ? "–" : JSON.stringify(each)));
  const rows = job.diff.map((each) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, each.path)), value(each.from), value(each.to)));
  const table = h("table", { class: "differences" }, h("thead", {}, head), h("tbody", {}, rows));
  return h("div", { id: "diff", class: "scroll" }, h("h3", {}, "Changed from its parent, ", parent), table);
}
