// Elements out of JavaScript; text is always text, never markup.

/** An element with properties (`on...` listeners, `class`, `data`, attributes) and children (nodes, texts; null is left out). */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value" || name === "checked" || name === "open") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function svg(tag, properties = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Put `children` in the place of what `element` holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

/** Make `element` what `fresh` is, where that is another: what is the same stays, with the focus that it has. */
export function renew(element, fresh) {
  if (element.className !== fresh.className) element.className = fresh.className;
  if (element.innerHTML !== fresh.innerHTML) element.replaceChildren(...fresh.childNodes);
}

export function notice(kind, ...words) {
  return h("p", { class: `notice ${kind}`, role: kind === "bad" ? "alert" : "status" }, ...words);
}

export function download(name, blob) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A button that copies what `text()` gives, and says so. */
export function copyButton(label, text) {
  const button = h("button", { type: "button", class: "small" }, label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Cannot copy here: select the text";
    }
    setTimeout(() => (button.textContent = label), 2000);
  });
  return button;
}

/** Call `work` once, a moment after the last call. */
export function settled(milliseconds, work) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), milliseconds);
  };
}

/** Call `work` soon, and never again before so much time has passed: a call meanwhile counts for one more. */
export function atMost(milliseconds, work) {
  let waiting = null;
  let last = -Infinity;
  return () => {
    waiting ??= setTimeout(() => {
      waiting = null;
      last = performance.now();
      work();
    }, Math.max(0, last + milliseconds - performance.now()));
  };
}

/** Call `work` once, as soon as `element` is near what is seen. */
export function whenSeen(element, work) {
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    work();
  }, { rootMargin: "120px" });
  observer.observe(element);
}
