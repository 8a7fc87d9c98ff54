// Models: what lies on the daemon's disks, what is being fetched, and the settings of each.

import { call, callSlowly, get } from "./api.js";
import { button, confirmed, empty, h, setText, toast } from "./dom.js";
import { downloadList } from "./downloads.js";
import { bytes, count, dateTime, fileName, plural } from "./format.js";
import { settingsForm } from "./model_settings.js";
import { pullForm } from "./pull_form.js";

const SHOWN = 300; // rows at once; more are found by the filter
const SOURCES = { folder: "Folder", huggingface: "Hugging Face", ollama: "Ollama", lm_studio: "LM Studio" };
const STATUS = { loaded: ["ready", "Loaded"], loading: ["loading", "Loading"], failed: ["failed", "Failed"], unloaded: ["", "On disk"], damaged: ["failed", "Damaged"] };
const COLUMNS = ["Model", "Size", "Quantisation", "State", ""];

export function view(root, session) {
  const rows = new Map(); // name → its row
  const asked = new Set(); // names that this page wanted loaded: how that ends is told here
  const body = h("tbody");
  const filter = h("input", { type: "search", placeholder: "Filter by name, source, size or capability", "aria-label": "Filter", oninput: arrange });
  const total = h("span", { className: "soft", role: "status" });
  const again = button("Look again", () => load(true), "quiet", { title: "Look at the disks now, and read all files' headers" });
  const pull = session.admin ? button("Get a model", getModel, "primary") : null;
  const head = h("tr", {}, ...COLUMNS.map((text) => h("th", { scope: "col", className: text === "Size" ? "number" : "" }, text || h("span", { className: "hidden" }, "Actions"))));
  const table = h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Models" }, h("table", { className: "library" }, h("thead", {}, head), body));
  const more = h("p", { className: "soft", role: "status" });
  const folders = h("div", { className: "folders" });
  const nothing = empty("No model yet", h("p", {}, "A model is a GGUF file on the daemon's machine: in its folder, or where Hugging Face, Ollama or LM Studio keep theirs. Any of them answers as soon as somebody names it."),
    h("div", { className: "row" }, session.admin ? button("Get a model", getModel, "primary") : null, button("Look again", () => load(true))));
  nothing.hidden = table.hidden = true;
  const downloads = session.admin ? downloadList(session, () => load(true)) : null;
  const bar = h("div", { className: "toolbar", hidden: true }, filter, total, again, pull);
  root.append(bar, ...(downloads ? [downloads.node] : []), table, more, nothing, folders);
  let closed = false;
  let pending = null;

  async function load(refresh = false) {
    try {
      again.disabled = refresh;
      const library = refresh ? await callSlowly("GET", "v1/library?refresh=true") : await get("v1/library");
      const { data: named } = await get("v1/models");
      if (closed) return;
      const inLibrary = new Set(library.models.flatMap((each) => [each.name, ...each.engines]));
      const aliases = new Map(named.map((each) => [each.id, each.aliases]));
      const models = [...library.models, ...named.filter((each) => !inLibrary.has(each.id) && each.status.value !== "downloading").map(elsewhere)];
      show(models.map((each) => ({ ...each, aliases: aliases.get(nameOf(each)) ?? [] })), library);
    } catch (error) {
      if (!closed && error.status && error.status !== 401) toast(error.message, "bad");
    } finally {
      again.disabled = false;
    }
  }

  function show(models, library) {
    const names = new Set(models.map((each) => each.name));
    for (const [name, row] of rows) {
      if (names.has(name)) continue;
      row.node.remove();
      rows.delete(name);
    }
    for (const model of models) {
      if (!rows.has(model.name)) rows.set(model.name, modelRow(model.name, session.admin ? actions : null));
      rows.get(model.name).update(model);
    }
    setText(total, models.length ? `${plural(models.length, "model")}${library.total_size ? `, ${bytes(library.total_size)}` : ""}` : "");
    nothing.hidden = models.length > 0;
    table.hidden = models.length === 0;
    bar.hidden = models.length === 0;
    showFolders(library.folders);
    arrange();
  }

  function showFolders(all) {
    if (!all.length) return;
    const items = all.map((each) => h("li", {}, h("b", {}, SOURCES[each.source]), " ", h("code", {}, each.path), each.problem ? h("span", { className: "bad" }, ` ${each.problem}`) : null));
    const was = folders.querySelector("details")?.open ?? all.some((each) => each.problem && each.source === "folder");
    folders.replaceChildren(h("details", { open: was }, h("summary", { className: "soft" }, "Where models are looked for"), h("ul", { className: "plain" }, ...items)));
  }

  function arrange() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [...rows.values()].filter((row) => words.every((word) => row.text.includes(word)));
    found.sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
    const nodes = found.slice(0, SHOWN).map((row) => row.node);
    if (nodes.length !== body.children.length || nodes.some((node, index) => body.children[index] !== node)) body.replaceChildren(...nodes);
    setText(more, found.length > SHOWN ? `${count(found.length - SHOWN)} more: narrow them down with the filter.` : rows.size && !found.length ? "No model is like that." : "");
  }

  async function getModel() {
    if (await pullForm()) downloads.refresh();
  }

  async function act(what, work) {
    try {
      return await work();
    } catch (error) {
      toast(`${what}: ${error.message}`, "bad");
    } finally {
      soon();
    }
    return null;
  }

  function soon() {
    pending ??= setTimeout(() => {
      pending = null;
      if (!closed) load();
    }, 200);
  }

  const actions = {
    load(model) {
      asked.add(nameOf(model));
      act(`${nameOf(model)} was not loaded`, () => call("POST", "models/load", { model: nameOf(model) }));
    },
    unload: (model) => act(`${nameOf(model)} was not unloaded`, () => callSlowly("POST", "models/unload", { model: nameOf(model) })),
    settings: async (model) => (await settingsForm(nameOf(model))) && soon(),
    async remove(model) {
      const files = plural(model.files.length + (model.projector ? 1 : 0), "file");
      if (!(await confirmed(`Delete ${model.name}?`, `${files} of ${bytes(model.size)} ${model.files.length > 1 ? "are" : "is"} removed from the disk (${SOURCES[model.source]}). This cannot be undone.`, "Delete"))) return;
      const gone = await act(`${model.name} was not deleted`, () => callSlowly("DELETE", `v1/library/${encodeURIComponent(model.name)}`));
      if (gone) toast(`${gone.name} is deleted: ${bytes(gone.freed_bytes)} are free`);
    },
  };

  const off = session.on((kind, data) => {
    if (kind === "engine.progress") {
      for (const row of rows.values()) row.progress(data.engine_id, data.progress);
      return;
    }
    if (kind === "engine.state" && asked.has(data.engine_id) && (data.state === "ready" || data.reason)) {
      asked.delete(data.engine_id);
      if (data.reason) toast(`${data.engine_id} was not loaded: ${data.reason}`, "bad");
    }
    if (/^engine\.|^library\.|^back$/.test(kind)) soon();
  });
  load();
  downloads?.refresh();
  return { close() {
    closed = true;
    off();
    downloads?.close();
    clearTimeout(pending);
  } };
}

/** What requests call it: its engine's name where somebody gave it one. */
const nameOf = (model) => (model.engines.includes(model.name) ? model.name : (model.engines[0] ?? model.name));

/** One of those that requests can name, whose file is in no folder of the library. */
function elsewhere({ id, name, status, capabilities, meta }) {
  return { name: id, source: null, size: meta?.size || null, files: [{ path: name, size: meta?.size ?? 0 }], projector: null, architecture: meta?.architecture ?? null,
    parameters: meta?.n_params, quantization: meta?.quantization ?? null, n_ctx_train: meta?.n_ctx_train, capabilities, error: null, engines: [id], status: status.value };
}

function parameters(n) {
  if (!n) return null;
  const [unit, word] = n >= 1e9 ? [1e9, "B"] : [1e6, "M"];
  return `${(n / unit).toFixed(n / unit < 100 ? 1 : 0).replace(/\.0$/, "")}${word}`;
}

function modelRow(name, actions) {
  const about = h("div", { className: "soft" });
  const wrong = h("div", { className: "bad" });
  const can = h("div");
  const title = h("th", { scope: "row" }, h("div", { className: "name" }, name), about, can, wrong);
  const cells = { size: h("td", { className: "number" }), quant: h("td") };
  const state = h("span", { className: "pill" });
  const chat = h("a", { className: "button", "aria-label": `Chat with ${name}` }, "Chat");
  const act = (label, key, className = "quiet") => actions ? button(label, () => actions[key](model), className, { "aria-label": `${label} ${name}` }) : null;
  const load = act("Load", "load");
  const unload = act("Unload", "unload");
  const settings = act("Settings", "settings");
  const remove = act("Delete", "remove");
  const buttons = [chat, load, unload, settings, remove].filter(Boolean);
  const node = h("tr", {}, title, cells.size, cells.quant, h("td", {}, state), h("td", {}, h("div", { className: "row actions" }, ...buttons)));
  let model = null;
  const row = { name, node, text: "", update(fresh) {
    model = fresh;
    const damaged = Boolean(model.error);
    const others = [...model.engines.filter((id) => id !== name), ...model.aliases];
    const facts = [model.source ? SOURCES[model.source] : fileName(model.files[0].path), model.architecture, parameters(model.parameters), model.n_ctx_train ? `context ${count(model.n_ctx_train)}` : null, model.projector ? "with projector" : null, model.files.length > 1 ? `${model.files.length} parts` : null];
    setText(about, [...facts, others.length ? `also ${others.join(", ")}` : null].filter(Boolean).join(" · "));
    setText(wrong, model.error ?? "");
    wrong.hidden = !damaged;
    title.title = `${model.files[0].path}${model.last_used_at ? `\nLast used: ${dateTime(model.last_used_at)}` : ""}`;
    setText(cells.size, bytes(model.size));
    setText(cells.quant, model.quantization ?? "–");
    for (const cell of Object.values(cells)) cell.classList.toggle("none", cell.textContent === "–");
    if (can.dataset.of !== model.capabilities.join()) {
      can.dataset.of = model.capabilities.join();
      can.replaceChildren(...model.capabilities.map((each) => h("span", { className: "chip" }, each)));
    }
    const [kind, words] = STATUS[damaged ? "damaged" : model.status];
    state.dataset.state = kind;
    if (model.status !== "loading" || !state.textContent.startsWith("Loading")) setText(state, words);
    chat.href = `#/chat?engine=${encodeURIComponent(nameOf(model))}`;
    chat.hidden = damaged;
    if (actions) {
      load.hidden = damaged || !["unloaded", "failed"].includes(model.status);
      unload.hidden = !["loaded", "loading"].includes(model.status);
      settings.hidden = damaged;
      remove.hidden = model.source === null;
    }
    row.text = node.textContent.toLowerCase();
  }, progress(id, part) {
    if (model.engines.includes(id) && model.status !== "loaded") setText(state, `Loading ${Math.round(part * 100)} %`);
  } };
  return row;
}
