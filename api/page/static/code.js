// The same job as commands: curl, and OpenAI's client for Python.

import { key } from "./api.js";

export function curl(spec) {
  const bearer = key() ? ' -H "authorization: Bearer $MHPO_API_KEY"' : "";
  return `curl ${location.origin}/v1/jobs${bearer} -H "content-type: application/json" -d @- <<'EOF'\n${JSON.stringify(spec, null, 2)}\nEOF`;
}

/** OpenAI's own fields where they have the word; all else of the spec is merged in as `x_spec`. */
export function openai(spec) {
  const { name, seed, model, dataset, rewards, ...more } = spec;
  const { path, ...rows } = dataset ?? {};
  const { path: base, ...loading } = model ?? {};
  const isUploaded = /^file-[a-z2-7]{24}$/.test(path ?? "");
  const file = isUploaded ? python(path) : "file.id";
  const part = (field, value) => (value && Object.keys(value).length ? { [field]: value } : {});
  const x = { ...more, ...part("model", loading), ...part("dataset", rows), ...(rewards?.length > 1 ? { rewards } : {}) };
  const grader = withoutNulls(rewards?.[0] ?? { type: "math" });
  return [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${python(`${location.origin}/v1`)}, api_key=${key() ? 'os.environ["MHPO_API_KEY"]' : '"none"'})`,
    isUploaded ? null : `file = client.files.create(file=open(${python(path ?? "train.jsonl")}, "rb"), purpose="fine-tune")`,
    "job = client.fine_tuning.jobs.create(",
    `    model=${python(base ?? "")},`,
    `    training_file=${file},`,
    name ? `    suffix=${python(name)},` : null,
    seed ? `    seed=${python(seed)},` : null,
    `    method={"type": "reinforcement", "reinforcement": {"grader": ${python(grader, 4)}}},`,
    Object.keys(x).length ? `    extra_body={"x_spec": ${python(x, 4)}},` : null,
    ")",
    "print(job.id)",
    "",
  ]
    .filter((line) => line !== null)
    .join("\n")
    .replace(/^/, key() ? "import os\n" : "");
}

function withoutNulls(node) {
  return Object.fromEntries(Object.entries(node).filter(([, value]) => value !== null));
}

/** A value as Python writes it, in lines from `indent` on. */
function python(value, indent = 0) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const isList = Array.isArray(value);
  const parts = isList ? value.map((each) => python(each, indent + 4)) : Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each, indent + 4)}`);
  const [open, close] = isList ? ["[", "]"] : ["{", "}"];
  const line = `${open}${parts.join(", ")}${close}`;
  if (line.length < 90 && !line.includes("\n")) return line;
  const room = " ".repeat(indent);
  return `${open}\n${parts.map((part) => `${room}    ${part},\n`).join("")}${room}${close}`;
}
