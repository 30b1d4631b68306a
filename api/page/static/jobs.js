// All jobs, newest first. The service renders the rows; here they are sorted, searched, picked and kept up to date.

import { fragment, key } from "./api.js";
import { copyButton, fill, h, notice, renew, settled } from "./dom.js";

const LOOK_MS = 4000;
const EXAMPLE = `{
  "name": "sums",
  "steps": 40,
  "model": {"path": "artifacts/base"},
  "dataset": {"path": "artifacts/sums.jsonl"},
  "rewards": [{"type": "exact"}]
}`;

export function show(main) {
  document.title = "Jobs · MHPO";
  new Jobs(main);
}

class Jobs {
  constructor(main) {
    const find = (id) => main.querySelector(`#${id}`);
    this.rows = new Map(); // job id -> row, newest first
    this.picked = new Set(); // ids of the jobs to compare
    this.order = null; // {column, direction}; null: newest first
    this.hasMore = false;
    this.known = false; // whether the rows are what the service has under this filter
    [this.search, this.status, this.compare, this.said, this.list, this.more] = ["search", "status-filter", "compare", "said", "list", "older"].map(find);
    this.status.addEventListener("change", () => this.reload());
    this.search.addEventListener("input", settled(100, () => this.draw()));
    this.more.addEventListener("click", () => this.older());
    this.list.addEventListener("change", ({ target }) => this.pick(target.value, target.checked));
    this.list.addEventListener("click", ({ target }) => target.closest(".sort") && this.sort(target.closest("th").cellIndex));
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.look());
    const there = this.list.querySelector("table");
    if (there && !key()) this.take(there); // with a key they may be others
    else this.reload();
    this.again();
  }

  again() {
    setTimeout(async () => {
      if (document.visibilityState === "visible") await this.look();
      this.again();
    }, LOOK_MS);
  }

  async reload() {
    this.rows.clear();
    this.known = false;
    await this.look();
  }

  /** The newest page anew; older ones stay as they were read. */
  async look() {
    const status = this.status.value;
    try {
      const fresh = await fragment("/fragments/jobs", { status });
      if (status !== this.status.value) return; // an answer to what is no longer asked
      fill(this.said);
      this.take(fresh.querySelector("table"));
    } catch (error) {
      fill(this.said, notice("bad", `Disconnected: ${error.message} Trying again…`));
      if (!this.rows.size) fill(this.list, h("p", { class: "quiet" }, "Jobs are shown when the service answers."));
    }
  }

  async older() {
    const status = this.status.value;
    try {
      const fresh = await fragment("/fragments/jobs", { status, after: [...this.rows.keys()].at(-1) });
      if (status !== this.status.value) return;
      this.take(fresh.querySelector("table"), { behind: true });
    } catch (error) {
      fill(this.said, notice("bad", `Older jobs could not be read: ${error.message}`));
    }
  }

  /** A page of jobs as the service has them now: the newest, or the one behind all that are there. */
  take(fresh, { behind = false } = {}) {
    if (!this.table) this.adopt(fresh);
    const rows = [...fresh.tBodies[0].rows];
    const page = new Map(rows.map((row) => [row.dataset.job, this.row(row)]));
    const end = "more" in fresh.dataset ? rows.at(-1).dataset.created : ""; // behind the last page there is nothing
    const others = [...this.rows].filter(([id, row]) => !page.has(id) && (behind || row.dataset.created < end));
    if (behind || !others.length) this.hasMore = "more" in fresh.dataset;
    this.known = true;
    this.rows = new Map(behind ? [...others, ...page] : [...page, ...others]);
    this.draw();
  }

  adopt(table) {
    this.table = table.cloneNode(true);
    this.heads = [...this.table.tHead.rows[0].cells];
    this.lines = this.table.tBodies[0];
    this.lines.replaceChildren();
  }

  /** The row of a job. Only a cell whose content is another is made anew: what one is about to press stays where it is. */
  row(fresh) {
    const known = this.rows.get(fresh.dataset.job);
    if (!known) return fresh;
    [...known.cells].forEach((cell, column) => {
      if (column > 0) renew(cell, fresh.cells[column]);
      Object.assign(cell.dataset, fresh.cells[column].dataset);
    });
    Object.assign(known.dataset, fresh.dataset);
    return known;
  }

  sort(column) {
    if (!this.known) return;
    const first = Number(this.heads[column].dataset.first);
    const turned = this.order?.column === column;
    if (turned && this.order.direction !== first) this.order = null;
    else this.order = { column, direction: turned ? -first : first };
    this.draw();
  }

  shown() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...this.rows.values()].filter((row) => words.every((word) => row.dataset.searched.includes(word)));
    if (!this.order) return rows;
    const { column, direction } = this.order;
    const read = this.heads[column].dataset.kind === "number" ? Number : String;
    const by = (row) => read(row.cells[column].dataset.by);
    return rows.sort((one, other) => direction * (by(one) < by(other) ? -1 : by(one) > by(other) ? 1 : 0));
  }

  draw() {
    if (!this.known) return;
    const rows = this.shown();
    this.more.hidden = !this.hasMore;
    if (!this.rows.size && !this.status.value) return fill(this.list, start());
    if (!rows.length) return fill(this.list, h("p", { class: "quiet" }, "No job is like that."));
    this.heads.forEach((head, column) => {
      if (this.order?.column === column) head.setAttribute("aria-sort", this.order.direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    const there = [...this.lines.children];
    if (rows.length !== there.length || rows.some((row, i) => row !== there[i])) this.lines.replaceChildren(...rows);
    if (!this.table.isConnected) fill(this.list, this.table);
  }

  pick(id, is) {
    this.picked[is ? "add" : "delete"](id);
    this.compare.hidden = this.picked.size < 2;
    this.compare.href = `/compare?jobs=${[...this.picked].join()}`;
    this.compare.textContent = `Compare ${this.picked.size}`;
  }
}

function start() {
  const bearer = key() ? ' \\\n  -H "authorization: Bearer $MHPO_API_KEY"' : "";
  const curl = `curl ${location.origin}/v1/jobs${bearer} \\\n  -H "content-type: application/json" \\\n  -d '${EXAMPLE}'`;
  return h(
    "div",
    { class: "start" },
    h("h2", {}, "No job yet"),
    h("p", {}, "Write one under ", h("a", { href: "/jobs/new" }, "New job"), ", or send one:"),
    h("pre", {}, curl),
    copyButton("Copy", () => curl),
  );
}
