// A new job: its spec as a form and as text, each in step with the other, checked by the service as one writes.

import { get, post } from "./api.js";
import { curl, openai } from "./code.js";
import { DatasetCard } from "./dataset.js";
import { copyButton, fill, h, notice, settled } from "./dom.js";
import { Editor } from "./editor.js";
import { Form } from "./form.js";
import { bytes, duration, number } from "./words.js";

export async function show(main) {
  document.title = "New job · MHPO";
  fill(main, h("p", { class: "quiet", role: "status" }, "Loading…"));
  const from = new URLSearchParams(location.search).get("from");
  const [document_, parent] = await Promise.all([get("/openapi.json"), from ? get(`/v1/jobs/${from}`) : null]);
  const example = document_.paths["/v1/jobs"].post.requestBody.content["application/json"].example;
  const maker = new Maker(document_, parent?.spec ?? example, parent);
  fill(main, maker.element);
  maker.check();
}

class Maker {
  constructor(description, spec, parent) {
    this.spec = spec;
    this.checkSoon = settled(350, () => this.check());
    this.sent = null; // {text, key}: the same spec sent again after a lost answer makes no second job
    this.editor = new Editor(spec, { spec: (read) => this.typed(read), unreadable: (message) => this.unreadable(message) });
    this.dataset = new DatasetCard((id) => this.uploaded(id));
    this.verdict = h("div", { id: "verdict", class: "verdict", "aria-live": "polite" });
    this.send = h("button", { type: "button", class: "primary", onclick: () => this.submit() }, "Start the job");
    const { schemas } = description.components;
    this.form = new Form(schemas, schemas.JobSpec, (edited) => this.edited(edited));
    this.form.show(spec);
    const codes = [copyButton("Copy as curl", () => curl(this.spec)), copyButton("Copy for OpenAI's client", () => openai(this.spec))];
    const heading = h("div", { class: "toolbar" }, h("h1", {}, parent ? `New job, from ${parent.name ?? parent.id}` : "New job"), codes, this.send);
    const side = h("div", { class: "side" }, h("section", { class: "card", "aria-label": "The same as text" }, h("h2", {}, "The same as text"), this.editor.element), this.dataset.element);
    this.element = h("div", {}, heading, this.verdict, h("div", { class: "maker" }, this.form.element, side));
  }

  edited(spec) {
    this.spec = structuredClone(spec);
    this.editor.show(spec);
    this.checkSoon();
  }

  /** Keep to what is written while it can be read. */
  typed(spec) {
    this.spec = spec;
    const isObject = typeof spec === "object" && spec !== null && !Array.isArray(spec);
    if (isObject) this.form.show(spec);
    this.checkSoon();
  }

  unreadable(message) {
    this.checking?.abort();
    this.send.disabled = true;
    fill(this.verdict, notice("bad", message));
  }

  uploaded(id) {
    this.edited({ ...this.spec, dataset: { ...this.spec.dataset, path: id } });
    this.form.show(this.spec);
  }

  async check() {
    this.checking?.abort();
    const mine = (this.checking = new AbortController());
    this.dataset.soon(this.spec?.dataset);
    try {
      const plan = await post("/v1/jobs/plan", this.spec, {}, mine.signal);
      this.send.disabled = false;
      this.form.faulty(null, null);
      fill(this.verdict, notice("good", ...planned(plan)));
    } catch (error) {
      if (error.name === "AbortError") return;
      this.send.disabled = true;
      this.form.faulty(error.param, error.message);
      fill(this.verdict, notice("bad", error.param ? h("b", {}, `${error.param}: `) : null, error.message));
    }
  }

  async submit() {
    this.send.disabled = true;
    const text = JSON.stringify(this.spec);
    if (this.sent?.text !== text) this.sent = { text, key: `page-${Date.now()}-${Math.random()}` };
    try {
      const job = await post("/v1/jobs", this.spec, { "idempotency-key": this.sent.key });
      location.assign(`/jobs/${job.id}`);
    } catch (error) {
      this.send.disabled = false;
      fill(this.verdict, notice("bad", error.param ? h("b", {}, `${error.param}: `) : null, error.message));
    }
  }
}

function planned(plan) {
  const { fit } = plan;
  const memory = fit.bytes_total === null ? "" : ` About ${bytes(fit.bytes_total)} on ${fit.device_name ?? fit.device}${fit.device_bytes ? ` of ${bytes(fit.device_bytes)}` : ""}.`;
  const time = plan.eta_seconds === null ? "" : ` At the pace of the latest run like it: ${duration(plan.eta_seconds)}.`;
  const doubt = fit.fits === false ? h("b", {}, " It does not fit into the memory.") : "";
  return [`This can run: ${number(plan.steps)} steps, ${number(plan.completions)} completions.${memory}${time}`, doubt];
}
