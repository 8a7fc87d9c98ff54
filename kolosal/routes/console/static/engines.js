// Engines: what is loaded, what it takes, and what went wrong.

import { callSlowly, call, enginePath, get } from "./api.js";
import { button, confirmed, empty, h, setText, toast } from "./dom.js";
import { engineForm } from "./engine_form.js";
import { bytes, count, duration, fileName, plural, rate } from "./format.js";

const POLL_MS = 2000;
const STATES = { ready: "Ready", loading: "Loading", unloading: "Unloading", unloaded: "Not loaded", closed: "Being removed" };

export function view(root, session) {
  const engines = new Map(); // id → what the daemon said last
  const boxes = new Map(); // id → its card
  const speeds = new Map(); // id → [time, tokens] of the poll before, and the tokens a second since
  let resident = {};
  let pending = null;
  let closed = false;

  const filter = h("input", { type: "search", placeholder: "Filter by name or file", "aria-label": "Filter", oninput: arrange });
  const total = h("span", { className: "soft", role: "status" });
  const add = button("Add an engine", () => engineForm(), "primary");
  const cards = h("div", { className: "cards" });
  const rest = h("div", { className: "rows" });
  const nothing = empty("No engine yet", h("p", {}, "An engine is one model in a process of its own, under a name that clients use as ", h("code", {}, "model"), "."),
    h("p", {}, "Get a model under ", h("a", { href: "#/models" }, "Models"), " and chat with it; or add one here, or in the terminal: ", h("code", {}, "kolosal load tiny models/tiny.gguf")),
    button("Add an engine", () => engineForm(), "primary"));
  root.append(h("div", { className: "toolbar" }, filter, total, add), cards, rest, nothing);

  async function refresh() {
    try {
      const { engines: all } = await get("v1/engines?details=true");
      const names = new Set(all.map((each) => each.engine_id));
      for (const id of engines.keys()) if (!names.has(id)) drop(id);
      for (const each of all) take(each);
      arrange();
    } catch (error) {
      if (error.status) toast(error.message, "bad");
    }
  }

  /** What changes from moment to moment, of the engines that have a process. */
  async function poll() {
    if (closed || document.hidden || document.body.classList.contains("away")) return;
    const busy = [...engines.values()].some((each) => each.state !== "unloaded");
    if (!busy) return;
    try {
      const [{ engines: some }, system] = await Promise.all([get("v1/engines?details=true&resident=true"), get("v1/metrics/system")]);
      resident = Object.fromEntries(system.processes.engines.map((each) => [each.engine_id, each.memory_bytes]));
      const now = performance.now();
      for (const each of some) {
        const before = speeds.get(each.engine_id);
        const speed = before ? Math.max(0, (each.output_tokens - before.tokens) / ((now - before.at) / 1000)) : 0;
        speeds.set(each.engine_id, { at: now, tokens: each.output_tokens, speed });
        take(each);
      }
    } catch {
      // the frame of the page says when the daemon is away
    }
  }

  function soon() {
    pending ??= setTimeout(() => {
      pending = null;
      if (!closed) refresh();
    }, 150);
  }

  function take(engine) {
    engines.set(engine.engine_id, engine);
    const place = isCard(engine) ? "card" : "row";
    let box = boxes.get(engine.engine_id);
    if (box?.place !== place) {
      const fresh = place === "card" ? card(engine.engine_id) : row(engine.engine_id);
      box?.node.replaceWith(fresh.node);
      boxes.set(engine.engine_id, (box = { ...fresh, place }));
    }
    box.update(engine, speeds.get(engine.engine_id)?.speed ?? 0, resident[engine.engine_id]);
  }

  function drop(id) {
    engines.delete(id);
    speeds.delete(id);
    boxes.get(id)?.node.remove();
    boxes.delete(id);
  }

  function arrange() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let visible = 0;
    for (const [id, engine] of engines) {
      const { node, place } = boxes.get(id);
      const text = `${id} ${engine.model_path}`.toLowerCase();
      node.hidden = !words.every((word) => text.includes(word));
      visible += !node.hidden;
      const home = place === "card" ? cards : rest;
      if (node.parentNode !== home) home.append(node);
    }
    nothing.hidden = engines.size > 0;
    filter.hidden = engines.size < 4;
    add.hidden = engines.size === 0;
    const inMemory = [...engines.values()].filter((each) => each.state === "ready").length;
    setText(total, engines.size ? `${plural(engines.size, "engine")}, ${count(inMemory)} loaded${words.length ? `, ${count(visible)} shown` : ""}` : "");
  }

  async function act(what, work) {
    try {
      await work();
    } catch (error) {
      toast(`${what}: ${error.message}`, "bad");
    }
    soon();
  }

  const actions = {
    load: (id) => act(`${id} was not loaded`, () => callSlowly("POST", `${enginePath(id)}/load`)),
    unload: (id) => act(`${id} was not unloaded`, () => callSlowly("POST", `${enginePath(id)}/unload`, {})),
    pin: (id) => act(`${id} was not changed`, () => call("PATCH", enginePath(id), { pin: !engines.get(id).pin })),
    replace: (id) => act(`${id} cannot be replaced`, async () => engineForm(await get(enginePath(id)))),
    remove: async (id) => {
      const running = engines.get(id).in_flight;
      const more = running ? ` ${plural(running, "request")} that run on it finish first.` : "";
      if (await confirmed(`Remove ${id}?`, `Its name is free at once, and its memory when nothing runs on it. The model's file stays.${more}`, "Remove")) {
        act(`${id} was not removed`, () => callSlowly("DELETE", enginePath(id)));
      }
    },
  };

  function card(id) {
    return engineCard(id, actions);
  }

  function row(id) {
    return engineRow(id, actions);
  }

  const off = session.on((kind, data) => {
    const engine = data && engines.get(data.engine_id);
    if (kind === "engine.progress" && engine) take({ ...engine, state: "loading", load_progress: data.progress });
    else if (["engine.state", "engine.removed", "engine.replica", "back"].includes(kind)) soon();
  });
  const timer = setInterval(poll, POLL_MS);
  refresh().then(poll);
  return { close() {
    closed = true;
    off();
    clearInterval(timer);
    clearTimeout(pending);
  } };
}

/** Whether there is more to see of an engine than its name. */
function isCard(engine) {
  return engine.state !== "unloaded" || engine.last_error || engine.breaker !== "closed";
}

function pill() {
  return h("span", { className: "pill" });
}

function showState(node, engine) {
  const failed = engine.state === "unloaded" && engine.last_error;
  const loading = engine.state === "loading" && engine.load_progress !== null;
  node.dataset.state = failed ? "failed" : engine.state;
  setText(node, failed ? "Failed" : STATES[engine.state] + (loading ? ` ${Math.round(engine.load_progress * 100)} %` : ""));
}

function menu(id, actions) {
  return [
    button("Replace", () => actions.replace(id), "quiet", { "aria-label": `Replace ${id}` }),
    button("Remove", () => actions.remove(id), "quiet", { "aria-label": `Remove ${id}` }),
  ];
}

function engineRow(id, actions) {
  const state = pill();
  const file = h("span", { className: "soft file" });
  const node = h("article", { className: "engine-row", "aria-label": id }, h("h2", {}, id), file, state,
    h("div", { className: "row" }, button("Load", () => actions.load(id), "", { "aria-label": `Load ${id}` }), ...menu(id, actions)));
  return { node, update(engine) {
    showState(state, engine);
    setText(file, fileName(engine.model_path));
    file.title = engine.model_path;
  } };
}

function meter(label) {
  const bar = h("div", { className: "bar", role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 }, h("i"));
  const text = h("span");
  const node = h("div", { className: "meter" }, h("div", { className: "row apart" }, h("span", { className: "soft" }, label), text), bar);
  return { node, show(part, words) {
    const percent = Math.round(Math.min(1, Math.max(0, part)) * 100);
    bar.firstChild.style.width = `${percent}%`;
    bar.setAttribute("aria-valuenow", percent);
    setText(text, words);
  } };
}

function stat(label) {
  const value = h("b");
  return { node: h("div", { className: "stat" }, value, h("span", { className: "soft" }, label)), show: (text) => setText(value, text) };
}

function engineCard(id, actions) {
  const state = pill();
  const file = h("p", { className: "soft file" });
  const progress = meter("Loading");
  const cells = meter("KV cache");
  const stats = { running: stat("running"), waiting: stat("waiting"), speed: stat("tokens/s"), context: stat("context") };
  const memory = h("p", { className: "soft" });
  const places = h("p", { className: "soft" });
  const idle = h("p", { className: "soft" });
  const words = h("p", { className: "error", role: "alert" });
  const pin = button("Pin", () => actions.pin(id), "quiet");
  const load = button("Load", () => actions.load(id), "", { "aria-label": `Load ${id}` });
  const unload = button("Unload", () => actions.unload(id), "", { "aria-label": `Unload ${id}` });
  const chat = h("a", { className: "button", href: `#/chat?engine=${encodeURIComponent(id)}`, "aria-label": `Chat with ${id}` }, "Chat");
  const logs = h("a", { href: `#/logs?engine=${encodeURIComponent(id)}` }, "Its log");
  const numbers = h("div", { className: "stats" }, ...Object.values(stats).map((each) => each.node));
  const node = h("article", { className: "card engine", "aria-label": id },
    h("header", {}, h("h2", {}, id), state), file, words, progress.node, numbers, cells.node, memory, places, idle,
    h("footer", { className: "row" }, chat, load, unload, pin, ...menu(id, actions), logs));
  return { node, update(engine, speed, resident) {
    showState(state, engine);
    const { info } = engine;
    const ready = engine.state === "ready";
    setText(file, [fileName(engine.model_path), info?.description ?? info?.architecture].filter(Boolean).join(" · "));
    file.title = engine.model_path;
    setText(words, engine.last_error ? engine.last_error + (engine.retry_after_s ? ` It is tried again after ${duration(engine.retry_after_s)}.` : "") : "");
    words.hidden = !engine.last_error || engine.state === "ready";
    progress.node.hidden = engine.state !== "loading";
    progress.show(engine.load_progress ?? 0, `${Math.round((engine.load_progress ?? 0) * 100)} %`);
    numbers.hidden = cells.node.hidden = !ready;
    const { n_parallel, kv_pool_tokens: pool, n_ctx } = engine.loading_parameters;
    const copies = engine.replicas?.replicas.filter((each) => each.state === "ready").length || 1;
    const slots = n_parallel * copies;
    stats.running.show(count(Math.min(engine.in_flight, slots || engine.in_flight)));
    stats.waiting.show(count(Math.max(0, engine.in_flight - (slots || engine.in_flight))));
    stats.speed.show(rate(speed));
    stats.context.show(count(n_ctx));
    cells.show((engine.kv_cells ?? 0) / (pool * copies || 1), `${count(engine.kv_cells ?? 0)} of ${count(pool * copies)} cells`);
    setText(memory, memoryWords(engine, resident));
    memory.hidden = !engine.memory;
    setText(places, replicaWords(engine.replicas));
    places.hidden = !engine.replicas;
    const counts = engine.expires_in_s !== null && ready && !engine.in_flight;
    setText(idle, engine.pin ? "Pinned: it stays in memory." : counts ? `Unloads in ${duration(engine.expires_in_s)} unless it is used.` : "");
    idle.hidden = !idle.textContent;
    setText(pin, engine.pin ? "Unpin" : "Pin");
    pin.setAttribute("aria-label", `${pin.textContent} ${id}`);
    load.hidden = engine.state !== "unloaded";
    unload.hidden = chat.hidden = !ready;
  } };
}

/** Where the copies of an engine are, of one that is placed in a cluster. */
function replicaWords(placed) {
  if (!placed) return "";
  const words = placed.replicas.map((each) => `${each.node_name ?? "no place yet"} (${each.state === "ready" ? `${count(each.in_flight)} in flight` : each.state})`);
  const most = placed.min === placed.max ? "" : ` of ${count(placed.min)} to ${count(placed.max)}`;
  return `${plural(placed.replicas.length, "replica")}${most}: ${words.join(", ")}`;
}

function memoryWords(engine, resident) {
  if (!engine.memory) return "";
  const gpus = Object.values(engine.memory.gpus).reduce((sum, each) => sum + each, 0);
  const estimated = `${bytes(engine.memory.host)} estimated${gpus ? `, ${bytes(gpus)} on GPUs` : ""}`;
  return `Memory: ${resident ? `${bytes(resident)} held, ` : ""}${estimated}`;
}
