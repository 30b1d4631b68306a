// Which page an address shows; the field for a key where one is wanted.

import { forgetKey, key, setKey, takeKey } from "./api.js";
import { fill, h, notice } from "./dom.js";

const main = document.getElementById("main");

takeKey();
for (const link of document.querySelectorAll("nav a")) {
  if (link.getAttribute("href") === location.pathname) link.setAttribute("aria-current", "page");
}
document.addEventListener("key-wanted", (event) => askForKey(event.detail));
open();

async function open() {
  try {
    const job = /^\/jobs\/([\w-]+)$/.exec(location.pathname)?.[1];
    if (job === "new") (await import("./new_job.js")).show(main);
    else if (job) await (await import("./run.js")).show(main, job);
    else if (location.pathname === "/compare") await (await import("./compare.js")).show(main);
    else (await import("./jobs.js")).show(main);
  } catch (error) {
    if (error.status === 401) return;
    const again = h("button", { type: "button", onclick: () => location.reload() }, "Try again");
    fill(main, h("h1", {}, error.status === 404 ? "Not found" : "This page could not be loaded"), notice("bad", error.message), again);
  }
}

/** Once a page: the field stands until a key is given. */
function askForKey(error) {
  if (document.getElementById("key")) return;
  const had = key() !== null;
  forgetKey();
  const field = h("input", { id: "key", type: "password", autocomplete: "off", placeholder: "mhpo-…", required: true });
  const give = (event) => {
    event.preventDefault();
    setKey(field.value.trim());
    location.reload();
  };
  fill(
    main,
    h(
      "form",
      { class: "card key", onsubmit: give },
      h("h1", {}, "An API key is needed"),
      h("p", {}, had ? error.message : "This service is shared: say who you are. The key stays in this tab, until it is closed."),
      h("label", { for: "key" }, "API key"),
      h("div", { class: "row" }, field, h("button", { class: "primary" }, "Open")),
      h("p", { class: "quiet" }, "On the service's machine ", h("code", {}, "mhpo keys create"), " makes one."),
    ),
  );
  field.focus();
}
