// What a run has come to: scores by checkpoint, and the checkpoints themselves.

import { get, key } from "./api.js";
import { copyButton, fill, h, notice } from "./dom.js";
import { age, bytes, number, statusWord } from "./words.js";

export class Evaluations {
  constructor(job) {
    this.path = `/v1/jobs/${job.id}/evaluations`;
    this.asked = job.spec.evaluation.benchmarks.length > 0;
    this.element = h("div", { class: "card scroll" }, h("p", { class: "quiet" }, "Loading…"));
  }

  async load() {
    this.begun = true;
    try {
      const { data } = await get(this.path);
      fill(this.element, data.length ? table(data) : h("p", { class: "quiet" }, this.nothing()));
    } catch (error) {
      fill(this.element, notice("bad", `The scores could not be read: ${error.message}`));
    }
  }

  nothing() {
    return this.asked ? "No evaluation has been queued yet." : "This job asks for no benchmarks (evaluation.benchmarks).";
  }
}

function table(evaluations) {
  const names = [...new Set(evaluations.flatMap((each) => Object.keys(each.result?.benchmarks ?? {})))];
  const columns = names.length ? names : ["Score"];
  const head = h("tr", {}, h("th", { scope: "col" }, "Model"), columns.map((name) => h("th", { scope: "col" }, name)));
  const base = evaluations.find((each) => each.model_kind === "base");
  const rows = evaluations.map((each) => {
    const model = each.model_kind === "base" ? "before training" : `step ${each.step}`;
    const cells = columns.map((name) => cell(each, each.result?.benchmarks?.[name], base?.result?.benchmarks?.[name]));
    return h("tr", {}, h("th", { scope: "row" }, model), cells);
  });
  const help = h("p", { class: "quiet" }, "avg@n with its 95 % interval over problems; the bar spans 0 to 1, the tick is the model before training.");
  return [h("table", { class: "scores" }, h("thead", {}, head), h("tbody", {}, rows)), help];
}

function cell(evaluation, score, base) {
  if (!score) {
    const reason = evaluation.status_reason?.message;
    return h("td", { class: evaluation.status === "failed" ? "bad" : "quiet" }, statusWord(evaluation.status), reason ? `: ${reason}` : "");
  }
  const interval = score.ci_low === null ? "" : ` (${percent(score.ci_low)}–${percent(score.ci_high)})`;
  const more = `pass@${score.n} ${percent(score.pass_at[String(score.n)])}, ${score.problems} problems, ${number(score.mean_tokens)} tokens, ${percent(score.truncated)} cut`;
  return h("td", {}, h("b", {}, percent(score.avg)), interval, whisker(score, base), h("div", { class: "quiet" }, more));
}

function whisker(score, base) {
  const bar = h("div", { class: "whisker", "aria-hidden": "true" });
  const put = (name, from, to) => {
    const piece = h("i", { class: name });
    piece.style.left = `${from * 100}%`;
    piece.style.width = `${(to - from) * 100}%`;
    bar.append(piece);
  };
  if (score.ci_low !== null) put("span", score.ci_low, score.ci_high);
  put("dot", score.avg, score.avg);
  if (base) put("tick", base.avg, base.avg);
  return bar;
}

export const percent = (share) => (share === undefined || share === null ? "–" : `${(share * 100).toFixed(1)} %`);

export class Checkpoints {
  constructor(job) {
    this.path = `/v1/jobs/${job.id}/checkpoints`;
    this.jobId = job.id;
    this.element = h("div", { class: "card scroll" }, h("p", { class: "quiet" }, "Loading…"));
  }

  async load() {
    this.begun = true;
    try {
      const { data } = await get(this.path);
      fill(this.element, data.length ? this.table(data.reverse()) : h("p", { class: "quiet" }, "No checkpoint has been saved yet."));
    } catch (error) {
      fill(this.element, notice("bad", `The checkpoints could not be read: ${error.message}`));
    }
  }

  table(checkpoints) {
    const head = ["Step", "Held-out reward", "Saved", "Size", "sha256", "Folder", ""].map((name) => h("th", { scope: "col" }, name));
    const rows = checkpoints.map((each) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, number(each.step), each.final ? " (final)" : ""),
        h("td", {}, number(each.validation_reward), each.best ? h("span", { class: "tag" }, "best") : null),
        h("td", {}, age(each.created_at)),
        h("td", {}, bytes(each.bytes)),
        h("td", {}, each.sha256 ? h("code", { title: each.sha256 }, each.sha256.slice(0, 12)) : h("span", { class: "quiet" }, "being counted")),
        h("td", {}, h("code", { class: "path" }, each.path)),
        h("td", {}, each.available ? this.archive(each.step) : h("span", { class: "quiet" }, "removed to keep the newest")),
      ),
    );
    return h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows));
  }

  /** A link cannot carry a key, and gigabytes should not go through a page's memory: with a key it is a command. */
  archive(step) {
    const path = `${this.path}/${step}/archive`;
    if (key() === null) return h("a", { class: "button small", href: path, download: "" }, "Download");
    const command = `curl -OJ -H "authorization: Bearer $MHPO_API_KEY" ${location.origin}${path}`;
    return copyButton("Copy download command", () => command);
  }
}
