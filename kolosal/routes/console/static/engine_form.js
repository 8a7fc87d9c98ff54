// Adding or replacing an engine: what it would take is said before anything is loaded.

import { call, callSlowly, enginePath, get } from "./api.js";
import { button, dialog, field, h, toast } from "./dom.js";
import { bytes, fileName } from "./format.js";

const ESTIMATE_AFTER_MS = 400;
const TEACH = "Choose one of the library, give the path of a .gguf file on the daemon's machine, or a name that is fetched first: hf.co/ORG/REPO.";
const NUMBERS = [
  ["n_ctx", "Context", "Tokens of one request, prompt and answer together."],
  ["n_gpu_layers", "Layers on GPUs", "0 none, -1 all."],
  ["n_parallel", "At the same time", "Requests that are answered together."],
];

/** A name that is fetched, not a path. */
const SOURCE = /^(hf:|hf\.co\/|huggingface\.co\/|ollama:|https?:\/\/)\S/i;

/** What an engine was added with besides what the form has fields for: replacing it keeps that. */
function others(engine) {
  const { model_path, pin, loading_parameters, ...rest } = engine?.asked ?? {};
  const parameters = { ...loading_parameters };
  for (const [key] of NUMBERS) if (typeof parameters[key] === "number") delete parameters[key];
  return { ...rest, ...parameters };
}

/** What a field for numbers shows; words such as "auto" stand in `others`. */
const number = (value) => (typeof value === "number" ? value : "");

/** `engine`: what to replace; without it one is added. Resolves when the dialog is closed. */
export function engineForm(engine) {
  const title = engine ? `Replace ${engine.engine_id}` : "Add an engine";
  return dialog(title, (close) => form(engine, close));
}

function form(engine, close) {
  const path = h("input", { required: true, maxLength: 4096, placeholder: "/models/tiny.gguf", value: engine?.asked.model_path ?? "", spellcheck: false, autocomplete: "off" });
  const files = h("datalist", { id: "library-files" });
  path.setAttribute("list", files.id);
  get("v1/library").then(({ models }) => files.append(...models.filter((each) => !each.error).map((each) => h("option", { value: each.files[0].path, label: each.name }))), () => null);
  const name = h("input", { required: true, maxLength: 128, value: engine?.engine_id ?? "", disabled: Boolean(engine), spellcheck: false, autocomplete: "off" });
  const pin = h("input", { type: "checkbox", checked: engine?.pin ?? false });
  const now = h("input", { type: "checkbox", checked: true });
  const inputs = Object.fromEntries(NUMBERS.map(([key]) => [key, h("input", { type: "number", step: 1, placeholder: "as it comes", value: number(engine?.asked.loading_parameters[key]) })]));
  const told = h("p", { className: "estimate", role: "status" }, TEACH);
  const submit = h("button", { className: "primary" }, engine ? "Replace" : "Add");
  let timer = null;
  let asked = 0;
  let named = Boolean(engine);

  const isFetched = () => !engine && SOURCE.test(path.value.trim());
  const parameters = () => ({ ...others(engine), ...given() });
  const given = () => Object.fromEntries(Object.entries(inputs).filter(([, input]) => input.value !== "").map(([key, input]) => [key, Number(input.value)]));

  async function estimate() {
    const number = ++asked;
    if (!path.value.trim()) {
      tell("", TEACH);
      return;
    }
    if (isFetched()) {
      tell("", "It is fetched first; Models shows how far it is.");
      return;
    }
    try {
      const found = await call("POST", "engines/estimate", { model_path: path.value.trim(), ...parameters() });
      if (number === asked) tell(found.fits ? "good" : found.can_fit ? "" : "bad", words(found));
    } catch (error) {
      if (number === asked) tell("bad", error.message);
    }
  }

  function tell(kind, text) {
    told.className = `estimate ${kind}`;
    told.textContent = text;
  }

  function changed() {
    if (!named) name.value = fileName(path.value).replace(/\.gguf$/i, "").replaceAll(":", "-").replace(/-\d{5}-of-\d{5}$/, "").slice(0, 128);
    clearTimeout(timer);
    timer = setTimeout(estimate, ESTIMATE_AFTER_MS);
  }

  path.addEventListener("input", changed);
  name.addEventListener("input", () => (named = true));
  for (const input of Object.values(inputs)) input.addEventListener("input", changed);
  if (engine) estimate();

  async function send(event) {
    event.preventDefault();
    submit.disabled = true;
    const body = { model_path: path.value.trim(), pin: pin.checked, ...parameters() };
    const id = name.value.trim();
    try {
      if (engine) {
        tell("", "It loads beside the old one where memory allows that, and takes over then …");
        await callSlowly("PUT", enginePath(id), { ...body, load_immediately: now.checked });
      } else if (isFetched()) {
        await call("POST", "engines", { ...body, engine_id: id, load_immediately: now.checked });
        location.hash = "#/models";
      } else {
        await call("POST", "engines", { ...body, engine_id: id, load_immediately: false });
        // not with the request above: that would take the engine back when this page is closed
        if (now.checked) callSlowly("POST", `${enginePath(id)}/load`).catch((error) => toast(`${id}: ${error.message}`, "bad"));
      }
      close(true);
    } catch (error) {
      tell("bad", error.message);
      submit.disabled = false;
    }
  }

  return h("form", { onsubmit: send },
    field("Model file", path), files, told, field("Name", name, engine ? "The old one goes on until the new one is ready." : "What clients give as model."),
    h("details", {}, h("summary", {}, "How it is loaded"), h("div", { className: "grid" }, ...NUMBERS.map(([key, label, hint]) => field(label, inputs[key], hint)))),
    h("label", { className: "check" }, pin, " Keep it in memory (pin)"), h("label", { className: "check" }, now, " Load it now"),
    h("div", { className: "row end" }, button("Cancel", () => close(false)), submit));
}

function words(found) {
  const gpus = Object.values(found.gpus).reduce((sum, gpu) => sum + gpu.total, 0);
  const need = `It takes ${bytes(found.host.total)}${gpus ? ` and ${bytes(gpus)} of GPU memory` : ""}`;
  const free = `${bytes(found.free.host)} are free`;
  if (found.fits && found.unloads.length) return `${need}. It fits once ${found.unloads.join(", ")} ${found.unloads.length > 1 ? "are" : "is"} unloaded, which happens by itself.`;
  if (found.fits) return `${need}; ${free}. It fits.`;
  if (found.can_fit) return `${need}; ${free}. It fits once other engines are idle.`;
  return `${need}; only ${free}. It does not fit, not even when all others are unloaded.`;
}
