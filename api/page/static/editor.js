// The spec as text, JSON or TOML, in step with whoever else changes it.

import { copyButton, h } from "./dom.js";

let toml = null;
const tomlLibrary = async () => (toml ??= await import("./vendor/smol-toml/index.js"));

export class Editor {
  /** `on.spec(value)`: a text that can be read; `on.unreadable(message)`: one that cannot. */
  constructor(spec, on) {
    Object.assign(this, { spec, on });
    const tab = (form, label) => h("button", { type: "button", class: "small", "aria-pressed": String(form === "json"), onclick: () => this.choose(form) }, label);
    this.tabs = { json: tab("json", "JSON"), toml: tab("toml", "TOML") };
    this.form = "json";
    this.text = h("textarea", { id: "spec", spellcheck: "false", "aria-label": "The job spec as JSON", oninput: () => this.typed() });
    this.nulls = h("p", { class: "quiet", id: "nulls" });
    this.element = h(
      "div",
      {},
      h("div", { class: "row", role: "group", "aria-label": "Form of the text" }, Object.values(this.tabs), copyButton("Copy", () => this.text.value)),
      this.text,
      this.nulls,
    );
    this.write();
  }

  async choose(form) {
    if (form === "toml") await tomlLibrary();
    this.form = form;
    for (const [name, tab] of Object.entries(this.tabs)) tab.setAttribute("aria-pressed", String(name === form));
    this.text.setAttribute("aria-label", `The job spec as ${form.toUpperCase()}`);
    this.write();
    this.on.spec(this.spec);
  }

  show(spec) {
    this.spec = structuredClone(spec);
    this.write();
  }

  write() {
    const nulls = this.form === "toml" ? nullPlaces(this.spec) : [];
    this.nulls.textContent = nulls.length ? `TOML has no null; kept beside this text: ${nulls.map((place) => place.join(".")).join(", ")}.` : "";
    this.text.value = this.form === "json" ? JSON.stringify(this.spec, null, 2) : toml.stringify(withoutNulls(this.spec));
  }

  typed() {
    let read;
    try {
      read = this.form === "json" ? JSON.parse(this.text.value) : withNulls(plain(toml.parse(this.text.value)), this.spec);
    } catch (error) {
      return this.on.unreadable(`This is no ${this.form.toUpperCase()} yet: ${error.message}`);
    }
    this.spec = read;
    this.on.spec(read);
  }
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** Paths of the nulls in objects; in lists TOML cannot do without them, and a spec has none there. */
function nullPlaces(node, path = []) {
  if (!isObject(node)) return [];
  return Object.entries(node).flatMap(([name, value]) => (value === null ? [[...path, name]] : nullPlaces(value, [...path, name])));
}

function withoutNulls(node) {
  if (Array.isArray(node)) return node.map(withoutNulls);
  if (!isObject(node)) return node;
  return Object.fromEntries(Object.entries(node).filter(([, value]) => value !== null).map(([name, value]) => [name, withoutNulls(value)]));
}

/** What was read, and the nulls of the spec before it wherever nothing has taken their place; a part of another type has none. */
function withNulls(read, before) {
  if (!isObject(read) || !isObject(before) || read.type !== before.type) return read;
  const kept = Object.entries(before).filter(([name, value]) => value === null && !(name in read));
  const parts = Object.entries(read).map(([name, value]) => [name, withNulls(value, before[name])]);
  return Object.fromEntries([...parts, ...kept]);
}

/** Numbers of TOML may be big ones; what JSON cannot hold (a date) becomes text. */
function plain(node) {
  if (Array.isArray(node)) return node.map(plain);
  if (node instanceof Date) return node.toISOString();
  if (typeof node === "bigint") return Number(node);
  return isObject(node) ? Object.fromEntries(Object.entries(node).map(([name, value]) => [name, plain(value)])) : node;
}
