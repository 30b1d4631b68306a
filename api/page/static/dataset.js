// A data set before it is used: uploaded, and its first rows with the prompts made of them.

import { post, upload } from "./api.js";
import { fill, h, notice, settled } from "./dom.js";
import { bytes, number } from "./words.js";

export class DatasetCard {
  /** `use(id)` is called with the id of a file that was uploaded. */
  constructor(use) {
    this.use = use;
    this.file = h("input", { type: "file", id: "upload", accept: ".jsonl,.json,.parquet", onchange: () => this.send() });
    this.state = h("div", { id: "uploaded", "aria-live": "polite" });
    this.preview = h("div", { id: "preview" }, h("p", { class: "quiet" }, "Loading…"));
    const label = h("label", { for: "upload" }, "Upload JSONL or parquet ");
    this.element = h("section", { class: "card", "aria-label": "Data set" }, h("h2", {}, "Data set"), h("div", { class: "row" }, label, this.file), this.state, this.preview);
  }

  async send() {
    const [file] = this.file.files;
    if (!file) return;
    this.file.disabled = true;
    fill(this.state, h("p", { class: "quiet" }, `Sending ${file.name}, ${bytes(file.size)}…`));
    try {
      const kept = await upload("/v1/files", file);
      fill(this.state, notice("good", `${kept.filename}: ${number(kept.rows)} rows, ${kept.columns.join(", ")}. It is the data set now.`));
      this.use(kept.id);
    } catch (error) {
      fill(this.state, notice("bad", `${file.name} was not kept: ${error.message}`));
    } finally {
      this.file.disabled = false;
      this.file.value = "";
    }
  }

  soon = settled(350, (dataset) => this.look(dataset));

  async look(dataset) {
    const asked = JSON.stringify(dataset ?? null);
    if (asked === this.asked) return;
    this.asked = asked;
    if (!dataset?.path) return fill(this.preview, h("p", { class: "quiet" }, "Rows are shown when dataset.path names a file."));
    try {
      const found = await post("/v1/datasets/preview?rows=3", dataset);
      if (asked === this.asked) fill(this.preview, shown(found));
    } catch (error) {
      if (asked === this.asked) fill(this.preview, h("p", { class: "quiet" }, `No preview: ${error.message}`));
    }
  }
}

function shown(found) {
  const prompts = found.prompts.map((prompt, i) => h("li", {}, asked(prompt, i), h("p", {}, "Answer: ", h("b", {}, prompt.answer), prompt.images ? `, with ${prompt.images} images` : "")));
  const fault = found.fault ? notice("warn", found.fault.param ? h("b", {}, `${found.fault.param}: `) : null, found.fault.message) : null;
  return [
    h("h3", {}, "First rows"),
    h("div", { class: "scroll" }, rows(found)),
    fault,
    prompts.length ? [h("h3", {}, "Their prompts"), h("ol", { class: "asked" }, prompts)] : null,
  ];
}

function rows(found) {
  const head = h("tr", {}, found.columns.map((column) => h("th", { scope: "col" }, column)));
  const cell = (value) => h("td", {}, value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value));
  return h("table", { class: "rows" }, h("thead", {}, head), h("tbody", {}, found.rows.map((row) => h("tr", {}, found.columns.map((column) => cell(row[column]))))));
}

/** With a chat template: what it is given; else the text as it is. */
function asked(prompt, i) {
  const text = prompt.messages ? prompt.messages.map((each) => `${each.role}: ${each.content}`).join("\n") : prompt.prompt;
  return h("pre", { tabindex: 0, "aria-label": `Prompt ${i + 1}` }, text);
}
