// A form made of a JSON schema. A field left empty is left out, and the default that it shows holds.

import { fill, h } from "./dom.js";

const OPEN = ["model", "dataset", "algorithm", "rollout", "rewards"];

export class Form {
  /** `schemas`: what `$ref` points to by its last name; `changed(spec)` is told of every edit. */
  constructor(schemas, root, changed) {
    Object.assign(this, { schemas, root, changed });
    this.opened = new Set(OPEN);
    this.element = h("form", { class: "form", onsubmit: (event) => event.preventDefault() });
  }

  show(spec) {
    this.spec = structuredClone(spec);
    const parts = Object.entries(this.root.properties).map(([name, schema]) => [name, this.resolve(schema)]);
    const isPart = ([, schema]) => schema.type === "object" || schema.oneOf || schema.items?.oneOf;
    const simple = parts.filter((part) => !isPart(part));
    const fields = simple.map(([name, schema]) => this.field([name], schema));
    const first = h("details", { open: true }, h("summary", {}, "Run"), fields);
    fill(this.element, first, parts.filter(isPart).map(([name, schema]) => this.part([name], schema)));
  }

  /** Words at the field that `param`, a dotted place, is about, or at the nearest one around it. */
  faulty(param, message) {
    for (const field of this.element.querySelectorAll(".faulty")) {
      field.classList.remove("faulty");
      field.querySelector(".wrong").textContent = "";
    }
    for (let place = param ?? ""; place; place = place.includes(".") ? place.slice(0, place.lastIndexOf(".")) : "") {
      const field = this.element.querySelector(`[data-path="${CSS.escape(place)}"]`);
      if (!field) continue;
      field.classList.add("faulty");
      field.querySelector(".wrong").textContent = message;
      for (let around = field.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
      return;
    }
  }

  resolve(schema) {
    return schema.$ref ? { ...this.schemas[schema.$ref.split("/").at(-1)], ...schema } : schema;
  }

  part(path, schema) {
    const place = path.join(".");
    const summary = h("summary", {}, words(path.at(-1)), h("span", { class: "quiet" }, ` ${schema.description ?? ""}`));
    const content = schema.items ? this.list(path, schema) : schema.oneOf ? this.choice(path, schema) : this.fields(path, schema);
    const details = h("details", { open: this.opened.has(place), data: { path: place } }, summary, h("span", { class: "wrong", role: "alert" }), content);
    details.addEventListener("toggle", () => this.opened[details.open ? "add" : "delete"](place));
    return details;
  }

  fields(path, schema) {
    const children = Object.entries(schema.properties).map(([name, child]) => [name, this.resolve(child)]);
    return children.map(([name, child]) => {
      if (child.const !== undefined) return null;
      return child.type === "object" || child.oneOf ? this.part([...path, name], child) : this.field([...path, name], child);
    });
  }

  /** One of several kinds of object, told apart by `type`. */
  choice(path, schema) {
    const kinds = schema.discriminator.mapping;
    const now = this.at([...path, "type"]) ?? schema.default?.type ?? Object.keys(kinds)[0];
    const id = `f-${path.join(".")}-type`;
    const select = h("select", { id }, Object.keys(kinds).map((kind) => h("option", { value: kind, selected: kind === now }, kind)));
    select.addEventListener("change", () => {
      this.put(path, { type: select.value });
      this.show(this.spec);
      this.element.querySelector(`[id="${CSS.escape(id)}"]`)?.focus();
    });
    const kind = this.resolve({ $ref: kinds[now] ?? Object.values(kinds)[0] });
    const row = h("div", { class: "field" }, h("label", { for: id }, "type"), h("div", {}, select, h("small", {}, kind.description ?? "")));
    return [row, this.fields(path, kind)];
  }

  list(path, schema) {
    const items = this.at(path) ?? schema.default ?? [];
    const rest = (i) => items.filter((_, index) => index !== i);
    const change = (list) => {
      this.put(path, list);
      this.show(this.spec);
    };
    const rows = (Array.isArray(items) ? items : []).map((_, i) => {
      if (this.at(path) === undefined) return h("p", { class: "quiet" }, `default: ${items[i].type}`);
      const remove = h("button", { type: "button", class: "small", onclick: () => change(rest(i)) }, "Remove");
      return h("fieldset", { data: { path: [...path, i].join(".") } }, h("legend", { class: "row" }, h("b", {}, `${i + 1}.`), remove), h("span", { class: "wrong", role: "alert" }), this.choice([...path, i], schema.items));
    });
    const first = Object.keys(schema.items.discriminator.mapping)[0];
    return [rows, h("button", { type: "button", class: "small", onclick: () => change([...(this.at(path) ?? []), { type: first }]) }, "Add one")];
  }

  field(path, schema) {
    const id = `f-${path.join(".")}`;
    const kind = schema.anyOf?.map((each) => this.resolve(each)).find((each) => each.type !== "null") ?? schema;
    const help = [schema.description, limits(kind)].filter(Boolean).join(". ");
    const input = this.input(path, kind, schema, id);
    input.setAttribute("aria-describedby", `${id}-help`);
    return h(
      "div",
      { class: "field", data: { path: path.join(".") } },
      h("label", { for: id }, words(path.at(-1))),
      h("div", {}, input, h("span", { class: "wrong", role: "alert" }), h("small", { id: `${id}-help` }, help)),
    );
  }

  input(path, kind, schema, id) {
    const value = this.at(path);
    const usual = schema.default === undefined ? "needed" : schema.default === null ? "not set" : shown(schema.default);
    if (kind.enum || kind.type === "boolean") {
      const options = (kind.enum ?? [true, false]).map((each) => h("option", { value: JSON.stringify(each), selected: each === value }, shown(each)));
      const select = h("select", { id }, h("option", { value: "" }, `default: ${usual}`), options);
      select.addEventListener("change", () => this.put(path, select.value === "" ? undefined : JSON.parse(select.value)));
      return select;
    }
    const input = h("input", { id, type: "text", placeholder: usual, value: value === undefined || value === null ? "" : shown(value), spellcheck: "false" });
    if (kind.type === "integer" || kind.type === "number") input.inputMode = kind.type === "integer" ? "numeric" : "decimal";
    input.addEventListener("input", () => this.put(path, read(input.value, kind)));
    return input;
  }

  at(path) {
    return path.reduce((node, name) => node?.[name], this.spec);
  }

  /** Set the value at a path, or leave it out (undefined), and with it what is then empty around it. */
  put(path, value) {
    const parents = path.slice(0, -1).map((_, i) => path.slice(0, i + 1));
    for (const parent of parents) {
      if (typeof this.at(parent) === "object" && this.at(parent) !== null) continue;
      const kept = this.root.properties[parent[0]]?.default;
      this.set(parent, parent.length === 1 && kept?.type ? { type: kept.type } : {});
    }
    this.set(path, value);
    const parent = path.slice(0, -1);
    if (parent.length && value === undefined && Object.keys(this.at(parent)).length === 0 && !this.root.required.includes(parent[0])) this.put(parent, undefined);
    this.changed(this.spec);
  }

  set(path, value) {
    const holder = this.at(path.slice(0, -1));
    if (value === undefined) delete holder[path.at(-1)];
    else holder[path.at(-1)] = value;
  }
}

/** What was written as the schema wants it; what cannot be is kept, for the service to say what is wrong. */
function read(text, kind) {
  if (text.trim() === "") return undefined;
  if (kind.type === "array") {
    const one = (kind.items ?? kind.prefixItems?.[0] ?? {}).type;
    return text.split(",").map((part) => part.trim()).filter(Boolean).map((part) => (one === "number" ? read(part, { type: one }) : part));
  }
  if (kind.type !== "integer" && kind.type !== "number") return text;
  const value = Number(text);
  return Number.isFinite(value) ? value : text;
}

const shown = (value) => (Array.isArray(value) ? value.join(", ") || "none" : value === true ? "yes" : value === false ? "no" : String(value));
const words = (name) => (typeof name === "number" ? `${name + 1}.` : name.replaceAll("_", " "));

function limits(kind) {
  const low = kind.minimum !== undefined ? `at least ${kind.minimum}` : kind.exclusiveMinimum !== undefined ? `above ${kind.exclusiveMinimum}` : "";
  const high = kind.maximum !== undefined ? `at most ${kind.maximum.toLocaleString("en")}` : kind.exclusiveMaximum !== undefined ? `below ${kind.exclusiveMaximum.toLocaleString("en")}` : "";
  const list = kind.type === "array" ? "several with commas between" : "";
  const all = [low, high, list].filter(Boolean).join(", ");
  return all && `${all[0].toUpperCase()}${all.slice(1)}.`;
}
