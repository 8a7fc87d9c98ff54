// The frame of the page: views by the address, the key, and whether the daemon is there.

import { apiKey, ApiError, get, setApiKey, stream } from "./api.js";
import { button, field, h, s, toast } from "./dom.js";

const VIEWS = {
  engines: ["Engines", "M4 5h16v5H4zM4 14h16v5H4zM7 7.5h2M7 16.5h2", true],
  models: ["Models", "M12 3l8 4.5v9L12 21l-8-4.5v-9zM12 12l8-4.5M12 12v9M12 12L4 7.5", false],
  chat: ["Chat", "M4 5h16v11H9l-5 4z", false],
  activity: ["Activity", "M3 12h4l3-7 4 14 3-7h4", true],
  metrics: ["Metrics", "M4 4v16h16M8 16v-4M12 16V8M16 16v-6", true],
  logs: ["Logs", "M5 4h14v16H5zM8 8h8M8 12h8M8 16h5", true],
  keys: ["Keys", "M9 15a4 4 0 1 1 3-3l8 0v3h-3v2h-3v-2z", true],
};

const RETRY_MS = [500, 1000, 2000, 3000];

/** What views may know: who asks, and what happens. `on(kind, fn)` gives the function that ends it. */
const session = {
  self: null,
  admin: false,
  listeners: new Set(),
  on(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  },
  tell(kind, data) {
    for (const listener of [...this.listeners]) listener(kind, data);
  },
};

const main = document.getElementById("main");
const link = document.getElementById("link");
let open = null; // what the view that is shown gave
let shown = 0; // counts views, so that one that loads slowly does not replace the next
let following = null;
let run = null; // the mark of the daemon's run

function buildNav() {
  const items = Object.entries(VIEWS).map(([name, [title, path, admin]]) => {
    const icon = s("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: path }));
    const item = h("a", { href: `#/${name}` }, icon, h("span", {}, title));
    if (admin && session.self && !session.admin) {
      item.className = "off";
      item.title = "This key does not have the scope admin";
    }
    return item;
  });
  document.getElementById("nav").replaceChildren(...items);
  mark();
}

function route() {
  const [name, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { name: name in VIEWS ? name : "engines", query: new URLSearchParams(query ?? "") };
}

function mark() {
  const { name } = route();
  for (const item of document.querySelectorAll("#nav a")) {
    if (item.hash === `#/${name}`) item.setAttribute("aria-current", "page");
    else item.removeAttribute("aria-current");
  }
  document.title = `${VIEWS[name][0]} · Kolosal`;
}

async function show() {
  if (!session.self) return;
  const { name, query } = route();
  const [title, , admin] = VIEWS[name];
  const number = ++shown;
  open?.close?.();
  open = null;
  mark();
  const root = h("section", { className: `view ${name}` }, h("h1", {}, title));
  if (admin && !session.admin) {
    root.append(h("p", { className: "notice" }, `This needs a key with the scope admin, and ${session.self.name} has only: ${session.self.scopes.join(", ")}.`));
    main.replaceChildren(root);
    return;
  }
  const { view } = await import(`./${name}.js`);
  if (number !== shown) return;
  main.replaceChildren(root);
  open = view(root, session, query) ?? null;
}

/** Asks for a key; `told` says why. */
function login(told) {
  open?.close?.();
  open = null;
  shown += 1;
  following?.abort();
  session.self = null;
  const input = h("input", { type: "password", required: true, autocomplete: "current-password" });
  const form = h("form", { className: "card login", onsubmit: (event) => {
    event.preventDefault();
    setApiKey(input.value.trim());
    start();
  } },
  h("h1", {}, "This daemon needs an API key"),
  told ? h("p", { className: "bad", role: "alert" }, told) : null,
  field("API key", input, "It stays in this tab until you close it."),
  h("div", { className: "row end" }, h("button", { className: "primary" }, "Open the console")),
  h("p", { className: "soft" }, "No key yet? On the daemon's machine: ", h("code", {}, "kolosal keys create NAME --scope admin --scope inference")));
  main.replaceChildren(form);
  say("", "");
  input.focus();
}

function say(kind, text) {
  link.className = kind;
  link.textContent = text;
}

/** Follows what happens as long as the page is open; says when the daemon is away and when it is another. */
async function follow() {
  following?.abort();
  const mine = (following = new AbortController());
  for (let tries = 0; !mine.signal.aborted; tries += 1) {
    try {
      await watch(mine.signal, () => (tries = 0));
    } catch (error) {
      if (mine.signal.aborted || (error instanceof ApiError && error.status === 401)) return;
    }
    if (mine.signal.aborted) return;
    say("bad", "The daemon does not answer. Trying again …");
    document.body.classList.add("away");
    session.tell("away");
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]));
  }
}

/** Until the daemon is away. Without the scope admin there are no events, so health is asked. */
async function watch(signal, onAnswer) {
  const back = (mark) => {
    onAnswer();
    document.body.classList.remove("away");
    say("good", "Connected");
    if (run !== null && mark !== run) toast("The daemon was restarted; connected again");
    const first = run === null;
    run = mark;
    if (!first) session.tell("back");
  };
  if (session.admin) {
    await stream("GET", "v1/events?kinds=engine.state,engine.progress,engine.removed,engine.replica,library.changed,download.state", undefined, signal, (kind, data, id) => {
      if (kind === "hello") back(id.split("-")[0]);
      else session.tell(kind, data);
    });
    return;
  }
  for (let uptime = 0; !signal.aborted; ) {
    const { server } = await get("health");
    if (run === null || document.body.classList.contains("away") || server.uptime < uptime) back(`health ${server.uptime < uptime}`);
    uptime = server.uptime;
    await new Promise((resolve) => setTimeout(resolve, 3000));
  }
}

async function start() {
  try {
    const [self, health] = await Promise.all([get("v1/keys/self"), get("health")]);
    session.self = self;
    session.admin = self.scopes.includes("admin");
    document.getElementById("about").textContent = `Version ${health.server.version}${health.server.update ? ` (${health.server.update} is there)` : ""}${self.name ? ` · key ${self.name}` : ""}`;
    document.getElementById("logout").hidden = !apiKey();
    buildNav();
    for (const problem of health.problems ?? []) toast(problem, "bad");
    run = null;
    follow();
    await show();
  } catch (error) {
    if (error.status === 401) return; // the form is shown
    if (error.status === 429) {
      login(error.message);
      return;
    }
    say("bad", error.message);
    main.replaceChildren(h("p", { className: "notice" }, `${error.message}. `, button("Try again", start)));
    setTimeout(() => session.self ?? start(), 3000);
  }
}

document.getElementById("logout").addEventListener("click", () => {
  setApiKey(null);
  login();
});
addEventListener("key-refused", ({ detail }) => {
  const had = apiKey();
  setApiKey(null);
  login(had ? `${detail.message}: it may have been revoked.` : null);
});
addEventListener("hashchange", () => {
  show();
  main.focus({ preventScroll: true });
});
addEventListener("key-made", start);
buildNav();
start();
