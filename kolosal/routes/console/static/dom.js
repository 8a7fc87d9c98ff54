// Elements. All text goes in as text; the only HTML is what the daemon made of Markdown (setMarkdown).

/** An element: properties, `on…` listeners, `data-…` and `aria-…` attributes, then children; null ones are left out. */
export function h(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key.includes("-") || key === "role" || key === "for") node.setAttribute(key, value);
    else node[key] = value;
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** An element of a drawing. */
export function s(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export function button(label, onclick, className = "", more = {}) {
  return h("button", { type: "button", className, onclick, ...more }, label);
}

/** A label above a field; `hint` says what it is for. */
export function field(label, input, hint) {
  return h("label", { className: "field" }, h("span", {}, label), input, hint ? h("small", { className: "soft" }, hint) : null);
}

/** Changes the text only where it differs, so that what is selected stays so. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Puts in what `POST /v1/markdown` made: the one place where HTML is inserted, and it holds none of anybody's own. */
export function setMarkdown(node, html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  node.replaceChildren(...parsed.body.childNodes);
}

/** A part of the text of what went wrong or well, for a while. */
export function toast(text, kind = "") {
  const node = h("div", { className: `toast ${kind}` }, h("span", {}, text), button("Close", () => node.remove(), "quiet"));
  const all = document.getElementById("toasts");
  all.append(node);
  while (all.children.length > 4) all.firstChild.remove();
  setTimeout(() => node.remove(), kind === "bad" ? 15000 : 5000);
}

/** A dialog over the page; resolves with what `close(value)` is given, undefined by Escape. */
export function dialog(title, build) {
  return new Promise((resolve) => {
    const heading = h("h2", { id: "dialog-title" }, title);
    const box = h("dialog", { "aria-labelledby": "dialog-title" }, heading);
    let result;
    const close = (value) => {
      result = value;
      box.close();
    };
    box.append(...[build(close)].flat());
    box.addEventListener("close", () => {
      box.remove();
      resolve(result);
    });
    document.body.append(box);
    box.showModal();
  });
}

/** Asks before something cannot be undone. */
export function confirmed(title, text, action) {
  return dialog(title, (close) => [
    h("p", {}, text),
    h("div", { className: "row end" }, button("Cancel", () => close(false)), button(action, () => close(true), "danger")),
  ]);
}

/** Copies; without https there is no clipboard, then the text is selected. */
export async function copyText(text, source) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch {
    if (source) getSelection().selectAllChildren(source);
    toast("Selected: copy it with the keyboard");
  }
}

/** Has the browser keep a text as a file. */
export function saveFile(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Something to show while there is nothing to show: what is missing, and how to get it. */
export function empty(title, ...more) {
  return h("div", { className: "empty" }, h("h2", {}, title), ...more);
}
