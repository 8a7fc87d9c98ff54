// Getting a model: searched for on the hub or named, and a quantisation chosen by what this machine holds.

import { ApiError, call, get } from "./api.js";
import { button, dialog, field, h } from "./dom.js";
import { bytes, count, plural } from "./format.js";

const ASK_AFTER_MS = 500;
const NAME = /^(hf:|hf\.co\/|huggingface\.co\/|ollama:|https?:\/\/)\S/i;
const REPOSITORY = /^[\w.-]+\/[\w.-]+(:\S+)?$/;
const EXAMPLES = ["hf.co/Qwen/Qwen3-0.6B-GGUF", "ollama:llama3.2:1b", "https://example.org/model.gguf"];

/** Resolves with true when something is being fetched. */
export function pullForm() {
  return dialog("Get a model", build);
}

function build(close) {
  const input = h("input", { type: "search", required: true, maxLength: 2000, placeholder: "qwen3, or hf.co/Qwen/Qwen3-0.6B-GGUF", spellcheck: false, autocomplete: "off" });
  const told = h("p", { className: "estimate", role: "status" });
  const choices = h("div", { className: "choices" });
  const submit = h("button", { className: "primary", disabled: true }, "Get");
  let asked = 0;
  let timer = null;
  let plan = null; // what the daemon would fetch
  let offer = null; // what was chosen of it

  function tell(kind, ...content) {
    told.className = `estimate ${kind}`;
    told.replaceChildren(...content);
  }

  function teach() {
    const pick = (name) => button(name, () => choose(name), "quiet code");
    tell("", "Search Hugging Face for GGUF models, or give a name: ", ...EXAMPLES.slice(0, 2).flatMap((name) => [pick(name), " "]), "or the address of a .gguf file, such as ", h("code", {}, EXAMPLES[2]), ".");
  }

  function changed() {
    asked += 1;
    plan = offer = null;
    submit.disabled = true;
    choices.replaceChildren();
    clearTimeout(timer);
    const text = input.value.trim();
    if (!text) teach();
    else timer = setTimeout(ask, ASK_AFTER_MS);
  }

  function choose(name) {
    input.value = name;
    changed();
    clearTimeout(timer);
    ask();
  }

  async function ask() {
    const number = ++asked;
    const text = input.value.trim();
    const source = NAME.test(text) ? text : REPOSITORY.test(text) ? `hf.co/${text}` : null;
    tell("", source ? `Looking for ${source} …` : "Searching …");
    try {
      const found = source ? await call("POST", "v1/downloads", { source, dry_run: true }) : await get(`v1/hub/models?limit=12&search=${encodeURIComponent(text)}`);
      if (number !== asked) return;
      if (source) showPlan(found);
      else showFound(found.repositories);
    } catch (error) {
      if (number !== asked) return;
      if (!(error instanceof ApiError)) throw error;
      tell("bad", error.message);
    }
  }

  function showFound(found) {
    tell("", found.length ? `${plural(found.length, "repository", "repositories")} with models, the most fetched first:` : "The hub has no GGUF models of that name.");
    choices.replaceChildren(h("ul", { className: "plain found", "aria-label": "Found" }, ...found.map((each) => h("li", {},
      button(each.name.replace(/^hf\.co\//, ""), () => choose(each.name), "quiet"),
      h("span", { className: "soft" }, `${count(each.downloads)} downloads${each.gated ? " · gated" : ""}`)))));
  }

  function showPlan(found) {
    plan = found;
    const chosen = found.offers.find((each) => each.source === found.source) ?? { source: found.source, size: found.total_bytes, comfortable: found.comfortable, loadable: found.loadable };
    if (found.offers.length > 1) {
      choices.replaceChildren(h("fieldset", { className: "offers" }, h("legend", {}, "Quantisation"), ...found.offers.map((each) => offerRow(each, each.source === chosen.source))));
    }
    take(chosen);
  }

  function offerRow(each, checked) {
    const radio = h("input", { type: "radio", name: "offer", checked, onchange: () => take(each) });
    const fit = each.comfortable ? ["good", "runs well"] : each.loadable ? ["warn", "fits tightly"] : ["bad", "too large"];
    return h("label", {}, radio, h("b", {}, each.quant), h("span", { className: "number soft" }, bytes(each.size)), h("span", { className: fit[0] }, fit[1]));
  }

  function take(each) {
    offer = each;
    submit.disabled = false;
    submit.textContent = each.loadable ? "Get" : "Get it anyway";
    const same = each.source === plan.source;
    const here = same && plan.present_bytes ? (plan.present_bytes >= plan.total_bytes ? " It is here already." : ` ${bytes(plan.present_bytes)} of it are here already.`) : "";
    const size = same && plan.total_bytes ? plan.total_bytes : each.size;
    const room = size > plan.free_bytes ? ` The disk has only ${bytes(plan.free_bytes)} free.` : ` The disk has ${bytes(plan.free_bytes)} free.`;
    const fit = each.loadable ? (each.comfortable ? "" : " It fits into this machine's memory, but tightly.") : " It is larger than this machine's memory.";
    tell(each.loadable && size <= plan.free_bytes ? "good" : "bad", `${each.source}: ${size ? bytes(size) : "size unknown"}.${here}${room}${fit}`);
  }

  async function send(event) {
    event.preventDefault();
    if (!offer) {
      ask();
      return;
    }
    submit.disabled = true;
    try {
      await call("POST", "v1/downloads", { source: offer.source, force: !offer.loadable });
      close(true);
    } catch (error) {
      tell("bad", error.message);
      submit.disabled = false;
    }
  }

  input.addEventListener("input", changed);
  teach();
  return h("form", { onsubmit: send }, field("Search, or a name", input), told, choices,
    h("div", { className: "row end" }, button("Cancel", () => close(false)), submit));
}
