// A job's curves: buckets of the record, and behind them each step as it happens.

import { get } from "./api.js";

const POINTS = 300; // buckets a curve, at most
const LIVE = 400; // steps that may come behind them before the buckets are made anew

/** One bucket of one curve, or one live step: `{step, x, mean, min, max}`, in the order of the steps. */
export class Curves {
  constructor(jobId, wanted, changed) {
    this.path = `/v1/jobs/${jobId}/metrics`;
    this.wanted = new Set(wanted);
    this.names = []; // all that the run has
    this.changed = changed;
    this.axis = "step";
    this.zoom = null; // [from, to] on the axis, or null
    this.points = new Map();
    this.nextStep = 0;
    this.live = 0;
    this.waiting = []; // steps that arrive while buckets are under way
    this.loading = null;
  }

  of(name) {
    return this.points.get(name) ?? [];
  }

  last(name) {
    return this.of(name).at(-1)?.mean ?? null;
  }

  /** Read all anew; a call while one is under way makes it void. */
  async load() {
    const [from, to] = this.zoom ?? [null, null];
    this.loading?.abort();
    const mine = (this.loading = new AbortController());
    let answer;
    try {
      answer = await get(this.path, { max_points: POINTS, names: [...this.wanted].join(), x: this.axis, from, to }, mine.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (this.loading === mine) this.loading = null;
      throw error;
    }
    this.points = new Map(Object.entries(answer.series).map(([name, buckets]) => [name, rows(buckets)]));
    this.names = answer.names;
    this.nextStep = answer.next_step;
    this.live = 0;
    this.loading = null;
    const waiting = this.waiting.splice(0);
    for (const line of waiting) this.add(line);
    this.changed();
  }

  /** A step of the stream. One that is done again takes the place of itself and all behind it. */
  add(line) {
    if (this.loading) {
      this.waiting.push(line);
      return;
    }
    if (this.zoom) return;
    if (line.step < this.nextStep - 1 || this.live >= LIVE) {
      this.again();
      return;
    }
    const x = { step: line.step, time: line.time, tokens: line.metrics.num_tokens ?? null }[this.axis];
    for (const [name, value] of Object.entries(line.metrics)) {
      if (!this.wanted.has(name)) continue;
      if (!this.points.has(name)) this.points.set(name, []);
      const curve = this.points.get(name);
      while (curve.length && curve.at(-1).step >= line.step) curve.pop();
      curve.push({ step: line.step, x, mean: value, min: value, max: value });
    }
    this.nextStep = line.step + 1;
    this.live += 1;
    this.changed();
  }

  again() {
    this.load().catch(() => setTimeout(() => this.again(), 3000));
  }
}

function rows(buckets) {
  return buckets.step.map((step, i) => ({ step, x: buckets.x[i], mean: buckets.mean[i], min: buckets.min[i], max: buckets.max[i] }));
}
