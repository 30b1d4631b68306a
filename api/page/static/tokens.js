// Completions token by token, in the colour of what the update saw at each.

import { h } from "./dom.js";
import { number } from "./words.js";

/** name -> [what it is called, whether it has a sign, what 0 says] */
const VALUES = {
  log_ratio: ["log-ratio", true, "one update a batch: the ratio is 1 everywhere"],
  survival: ["survival weight", false, "nothing survives"],
  multiplier: ["gradient multiplier", false, "no gradient anywhere"],
  sampler_difference: ["learner less engine", true, "learner and engine agree"],
};
const STRONGEST = 55; // per cent of the colour, at which text on it is still easily read

export class Colouring {
  /** `changed()` is called when another value is chosen. */
  constructor(changed) {
    const options = Object.entries(VALUES).map(([value, [label]]) => h("option", { value }, label));
    this.choice = h("select", { id: "rollouts-colour" }, h("option", { value: "" }, "nothing"), options);
    this.choice.value = localStorage.getItem("colour") ?? "";
    this.choice.addEventListener("change", () => {
      localStorage.setItem("colour", this.choice.value);
      changed();
    });
    this.scale = h("span", { class: "scale", role: "status" });
    this.element = h("span", { class: "row" }, h("label", {}, "Colour by ", this.choice), this.scale);
    this.largest = 0;
  }

  /** The samples whose completions come next: they share one scale. */
  take(samples) {
    const name = this.choice.value;
    const values = samples.flatMap((sample) => sample.completions.flatMap((each) => each.token_trace?.[name] ?? []));
    this.largest = values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    this.scale.replaceChildren(...(name ? this.words(name, values) : []));
  }

  words(name, values) {
    const [, signed, zero] = VALUES[name];
    if (!values.length) return ["no token of this step has it: samples.tokens keeps the first ones, survival is mhpo's"];
    if (!this.largest) return [zero];
    const low = signed ? `−${number(this.largest)}` : "0";
    return [low, h("i", { class: signed ? "both" : "up" }), number(this.largest)];
  }

  /** A completion's text as nodes. */
  text(completion) {
    const trace = completion.token_trace;
    const values = trace?.[this.choice.value];
    if (!values) return completion.text;
    const tokens = trace.text.map((text, i) => this.token(text, values[i]));
    if (tokens.length >= completion.tokens) return tokens;
    const known = trace.text.join("");
    const rest = completion.text.startsWith(known) ? completion.text.slice(known.length) : " … and more, which is shown without colours.";
    return [...tokens, h("span", { class: "quiet" }, rest)];
  }

  token(text, value) {
    const name = this.choice.value;
    const strength = this.largest ? (Math.abs(value) / this.largest) * STRONGEST : 0;
    const mark = h("mark", { title: `${VALUES[name][0]} ${number(value)}`, data: { value } }, text);
    const colour = value < 0 ? "var(--curve-2)" : "var(--curve-1)";
    mark.style.backgroundColor = `color-mix(in srgb, ${colour} ${strength.toFixed(0)}%, transparent)`;
    return mark;
  }
}
