// The service's API: the key, requests, and the stream of a job's news.

const KEY = "mhpo-key";

/** Take a key that came as `#key=...` into this tab's session, and out of the address. */
export function takeKey() {
  const found = /[#&]key=([^&]+)/.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem(KEY, decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname + location.search);
}

export const key = () => sessionStorage.getItem(KEY);
export const setKey = (value) => sessionStorage.setItem(KEY, value);
export const forgetKey = () => sessionStorage.removeItem(KEY);

export class ApiError extends Error {
  constructor(status, fault) {
    super(fault.message);
    Object.assign(this, { status, param: fault.param ?? null, code: fault.code });
  }
}

/** The service gave no answer at all. */
export class Unreachable extends Error {}

const headers = (more = {}) => (key() ? { authorization: `Bearer ${key()}`, ...more } : more);

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("The service does not answer.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const error = new ApiError(response.status, body.error ?? { message: `${response.status} ${response.statusText}`, code: "http" });
  if (error.status === 401) document.dispatchEvent(new CustomEvent("key-wanted", { detail: error }));
  throw error;
}

/** A path with its query; lists are repeated, what is not given is left out. */
function address(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (Array.isArray(value)) value.forEach((each) => query.append(name, each));
    else if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/** The JSON that GET gives; what has not changed comes out of the browser's cache. */
export async function get(path, parameters = {}, signal = undefined) {
  return (await send(address(path, parameters), { headers: headers(), signal })).json();
}

/** A part of the page as the service renders it, in a document of its own. */
export async function fragment(path, parameters = {}) {
  const answer = await send(address(path, parameters), { headers: headers() });
  return new DOMParser().parseFromString(await answer.text(), "text/html").body;
}

export async function post(path, body = undefined, more = {}, signal = undefined) {
  const json = body === undefined ? {} : { "content-type": "application/json" };
  const options = { method: "POST", headers: headers({ ...json, ...more }), body: body && JSON.stringify(body), signal };
  return (await send(path, options)).json();
}

/** A file, as OpenAI's API takes it. */
export async function upload(path, file) {
  const body = new FormData();
  body.append("purpose", "fine-tune");
  body.append("file", file);
  return (await send(path, { method: "POST", headers: headers(), body })).json();
}

const SILENT_MS = 40_000; // the stream says something every 15 s
const RETRY_MS = 1500;

/**
 * A job's news for as long as the page is open. After a break it goes on behind the last piece that arrived, so nothing is
 * missed and nothing comes twice. `on.news(kind, data, id)`, `on.state(connected, error)`, `on.lost()`: the record is another.
 */
export class Stream {
  constructor(jobId, on) {
    this.path = `/v1/jobs/${jobId}/stream`;
    this.on = on;
    this.last = null;
    this.closed = false;
    this.heard = Date.now();
    for (const event of ["online", "visibilitychange", "focus"]) {
      (event === "visibilitychange" ? document : window).addEventListener(event, () => this.check());
    }
    setInterval(() => this.check(), 5000);
    this.run();
  }

  close() {
    this.closed = true;
    this.abort?.abort();
  }

  /** A machine that slept holds a connection that is dead and does not know. */
  check() {
    if (Date.now() - this.heard > SILENT_MS) this.abort?.abort();
    if (document.visibilityState === "visible") this.wake?.();
  }

  async run() {
    while (!this.closed) {
      try {
        await this.read();
        this.on.state(false, null);
      } catch (error) {
        if (error.status === 401 || error.status === 404) return this.on.state(false, error);
        if (error.status === 422) return this.on.lost();
        this.on.state(false, error.name === "AbortError" ? new Unreachable("Nothing was heard for a while.") : error);
      }
      await new Promise((wake) => {
        this.wake = wake;
        setTimeout(wake, RETRY_MS);
      });
    }
  }

  async read() {
    this.abort = new AbortController();
    this.heard = Date.now();
    const more = this.last ? { "last-event-id": this.last } : {};
    const response = await send(`${this.path}?from=now`, { headers: headers(more), signal: this.abort.signal, cache: "no-store" });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    this.on.state(true, null);
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      this.heard = Date.now();
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) this.take(block);
    }
  }

  take(block) {
    const fields = {};
    for (const line of block.split("\n")) {
      const colon = line.indexOf(":");
      if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
    }
    if (!fields.event) return;
    this.on.news(fields.event, JSON.parse(fields.data), fields.id);
    this.last = fields.id;
  }
}
