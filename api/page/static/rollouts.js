// What a step sampled: each prompt with its completions side by side.

import { get } from "./api.js";
import { Colouring } from "./tokens.js";
import { fill, h, notice, settled } from "./dom.js";
import { number } from "./words.js";

export class Rollouts {
  constructor(job) {
    this.path = `/v1/jobs/${job.id}/samples`;
    this.latest = job.step;
    this.step = null; // null: the latest, and on with the run
    const soon = settled(300, () => this.load());
    const field = (id, label, properties) => h("label", {}, `${label} `, (this[id] = h("input", { id: `rollouts-${id}`, type: "number", oninput: soon, ...properties })));
    const graders = job.spec.rewards.map((grader) => grader.name ?? grader.type);
    this.grader = h("select", { id: "rollouts-grader", onchange: soon }, h("option", { value: "" }, "reward"), graders.map((name) => h("option", { value: name }, name)));
    this.truncated = h("select", { id: "rollouts-truncated", onchange: soon }, [["", "all"], ["true", "cut at the limit"], ["false", "ended by itself"]].map(([value, label]) => h("option", { value }, label)));
    this.colouring = new Colouring(() => this.show());
    this.list = h("div", { class: "prompts" }, h("p", { class: "quiet" }, "Loading…"));
    this.element = h(
      "div",
      {},
      h(
        "div",
        { class: "controls" },
        h("button", { type: "button", class: "small", onclick: () => this.turn(-1), "aria-label": "The step before" }, "‹"),
        field("number", "Step", { min: 0, oninput: settled(300, () => this.choose(this.number.value === "" ? null : Number(this.number.value))), placeholder: "latest" }),
        h("button", { type: "button", class: "small", onclick: () => this.turn(1), "aria-label": "The step after" }, "›"),
        h("button", { type: "button", class: "small", onclick: () => this.choose(null) }, "Latest"),
        h("label", {}, "By ", this.grader),
        field("low", "from", { step: "any" }),
        field("high", "to", { step: "any" }),
        h("label", {}, "Length ", this.truncated),
        this.colouring.element,
      ),
      this.list,
    );
  }

  choose(step) {
    this.step = step;
    this.number.value = step ?? "";
    return this.load();
  }

  turn(by) {
    return this.choose(Math.max(0, (this.step ?? this.shown ?? this.latest) + by));
  }

  /** The viewer goes on with the run while one looks at the latest step and has opened nothing in it. */
  newStep(step) {
    this.latest = step;
    if (this.begun && this.step === null && !this.list.querySelector("details.prompt[data-opened]")) this.soon();
  }

  soon = settled(1500, () => this.load());

  async load() {
    this.begun = true;
    const parameters = { step: this.step, min_reward: this.low.value, max_reward: this.high.value, grader: this.grader.value, truncated: this.truncated.value };
    const filtered = [this.low, this.high, this.grader, this.truncated].some((field) => field.value !== "");
    try {
      const { data } = await get(this.path, parameters);
      this.shown = data[0]?.step ?? null;
      this.data = data;
      this.filtered = filtered;
      this.show();
    } catch (error) {
      fill(this.list, notice("bad", `The rollouts could not be read: ${error.message}`));
    }
  }

  /** What was read, in the colours that are chosen now; what is open stays open. */
  show() {
    if (!this.data) return;
    const before = this.drawn === this.data ? [...this.list.querySelectorAll("details.prompt")].map((each) => each.open) : [];
    this.drawn = this.data;
    this.colouring.take(this.data);
    if (!this.data.length) return fill(this.list, h("p", { class: "quiet" }, this.nothing(this.filtered)));
    const prompts = this.data.map((sample, i) => prompt(sample, before[i] ?? i < 2, this.colouring));
    fill(this.list, h("p", { class: "quiet" }, heading(this.data)), prompts);
  }

  nothing(filtered) {
    if (filtered) return "No completion of this step is like that.";
    return this.step === null ? "Nothing has been sampled yet." : `Step ${this.step} has no rollouts kept.`;
  }
}

function heading(samples) {
  const completions = samples.flatMap((sample) => sample.completions);
  const words = `Step ${samples[0].step}: ${samples.length} prompts, ${completions.length} completions`;
  return samples[0].attempt > 1 ? `${words}, of attempt ${samples[0].attempt}` : words;
}

function prompt(sample, open, colouring) {
  const rewards = sample.completions.map((each) => each.reward);
  const details = h(
    "details",
    { class: "prompt", open },
    h("summary", { onclick: () => (details.dataset.opened = "yes") }, h("span", { class: "words" }, sample.prompt.trim().slice(0, 160)), h("span", { class: "dots", "aria-label": `rewards ${rewards.map((each) => number(each)).join(", ")}` }, rewards.map(dot))),
    h("div", { class: "asked" }, h("pre", { tabindex: 0, "aria-label": "The prompt" }, sample.prompt), h("p", {}, "Answer: ", h("b", {}, sample.answer), h("span", { class: "quiet" }, `  ·  problem ${sample.problem_id}`))),
    h("div", { class: "completions" }, sample.completions.map((each) => completion(each, colouring))),
  );
  return details;
}

const dot = (reward) => h("i", { class: reward > 0 ? "dot good" : "dot", title: number(reward) });

function completion(each, colouring) {
  const sign = each.advantage > 0 ? "good" : each.advantage < 0 ? "bad" : "quiet";
  const graders = Object.entries(each.by_grader ?? {}).map(([name, score]) => `${name} ${number(score)}`);
  const errors = Object.entries(each.errors ?? {}).map(([name, error]) => h("p", { class: "bad" }, `${name} failed: ${error}`));
  return h(
    "article",
    { class: "completion" },
    h(
      "header",
      {},
      h("b", {}, `#${each.index + 1}`),
      h("span", {}, `reward ${number(each.reward)}`),
      h("span", { class: sign }, `advantage ${each.advantage > 0 ? "+" : ""}${number(each.advantage)}`),
      h("span", { class: "quiet" }, `${number(each.tokens)} tokens`),
      each.finish_reason === "length" ? h("span", { class: "tag warn" }, "cut") : null,
    ),
    h("pre", { tabindex: 0, "aria-label": `Completion ${each.index + 1}` }, colouring.text(each)),
    h("footer", { class: "quiet" }, graders.join(" · ")),
    errors,
  );
}
