// Settings of a model: what holds for it where a request says nothing itself, and where each value comes from.

import { call, get } from "./api.js";
import { button, dialog, field, h, toast } from "./dom.js";
import { fileName } from "./format.js";

const SAMPLING = [
  ["temperature", "Temperature", 0.1],
  ["top_p", "Top p", 0.05],
  ["top_k", "Top k", 1],
  ["min_p", "Min p", 0.01],
  ["repeat_penalty", "Repeat penalty", 0.05],
  ["presence_penalty", "Presence penalty", 0.1],
];
const LOADING = [
  ["n_ctx", "Context", 1],
  ["n_gpu_layers", "Layers on GPUs", 1],
  ["n_parallel", "At the same time", 1],
];

const path = (name) => `v1/model-settings/${encodeURIComponent(name)}`;

/** Resolves with true when something was changed. */
export async function settingsForm(name) {
  let told;
  let file;
  try {
    [told, file] = await Promise.all([get(path(name)), get("v1/model-settings")]);
  } catch (error) {
    toast(error.message, "bad");
    return false;
  }
  return dialog(`Settings of ${name}`, (close) => build(name, told, file, close));
}

function build(name, told, file, close) {
  const said = told.settings ?? {};
  const holds = new Map(told.holds.map((each) => [each.name, each]));
  const alias = h("input", { value: (said.alias ?? []).join(", "), placeholder: "none", spellcheck: false, autocomplete: "off" });
  const keepAlive = h("input", { value: said.keep_alive ?? "", placeholder: shown(holds.get("keep_alive")) || "as configured", autocomplete: "off" });
  const main = settingsFields(said, holds);
  const profiles = h("div", { className: "profiles" });
  const wrong = h("p", { className: "error", role: "alert", hidden: true });
  const submit = h("button", { className: "primary", disabled: file.path === null }, "Save");
  const sets = [];

  function addProfile(profile, settings = {}) {
    const label = h("input", { value: profile, required: true, maxLength: 64, placeholder: "creative", autocomplete: "off", spellcheck: false });
    const fields = settingsFields(settings, new Map());
    const set = { label, fields, settings };
    const node = h("fieldset", {}, h("legend", {}, "Profile"), field("Profile's name", label, `Clients ask for ${name}:NAME.`), fields.node,
      h("div", { className: "row end" }, button("Remove the profile", () => {
        sets.splice(sets.indexOf(set), 1);
        node.remove();
      }, "quiet")));
    sets.push(set);
    profiles.append(node);
    return label;
  }

  for (const [profile, settings] of Object.entries(said.profiles ?? {})) addProfile(profile, settings);

  function body() {
    const names = alias.value.split(",").map((each) => each.trim()).filter(Boolean);
    const kept = keepAlive.value.trim();
    const entry = { ...said, ...main.read(said), alias: names, keep_alive: kept === "" ? undefined : /^-?\d+(\.\d+)?$/.test(kept) ? Number(kept) : kept };
    entry.profiles = Object.fromEntries(sets.map(({ label, fields, settings }) => [label.value.trim(), trimmed({ ...settings, ...fields.read(settings) })]));
    return trimmed(entry);
  }

  async function send(event) {
    event.preventDefault();
    const names = sets.map(({ label }) => label.value.trim());
    const twice = names.find((each, index) => names.indexOf(each) !== index);
    if (twice) return tell(`Two profiles are called ${twice}`);
    submit.disabled = true;
    try {
      const entry = body();
      if (Object.keys(entry).length) await call("PUT", path(name), entry);
      else if (told.settings) await call("DELETE", path(name));
      toast(`The settings of ${name} hold from the next request on`);
      close(true);
    } catch (error) {
      tell(error.message);
      submit.disabled = false;
    }
  }

  function tell(text) {
    wrong.textContent = text;
    wrong.hidden = false;
  }

  const place = file.path === null ? h("p", { className: "notice" }, "This daemon has no models.yaml, so nothing can be written.")
    : h("p", { className: "soft", title: file.path }, "They hold where a request says nothing itself, and are kept in ", h("code", {}, fileName(file.path)), ".");
  return h("form", { className: "settings", onsubmit: send }, place,
    h("div", { className: "pair" }, field("Other names", alias, "With commas between. They load nothing twice."),
      field("Keep in memory", keepAlive, origin(holds.get("keep_alive")) ?? "After an answer: 5m, 1h30m, seconds, or -1 for ever.")),
    main.node,
    h("details", { open: sets.length > 0 }, h("summary", {}, "Profiles"), h("p", { className: "soft" }, "The same model with other settings, under a name of its own."), profiles,
      button("Add a profile", () => addProfile("").focus())),
    h("details", {}, h("summary", {}, "All that holds, and where it comes from"), allOf(told.holds)),
    wrong, h("div", { className: "row end" }, button("Cancel", () => close(false)), submit));
}

/** System prompt, sampling and loading: of a model or of a profile. Keys without a field stay as they are. */
function settingsFields(said, holds) {
  const system = h("textarea", { rows: 2, value: said.system ?? "", placeholder: shown(holds.get("system")) || "none", maxLength: 262144 });
  const number = (group, key, step) => h("input", { type: "number", step: step === 1 ? 1 : "any", value: said[group]?.[key] ?? "", placeholder: shown(holds.get(`${group}.${key}`)) || "as it comes" });
  const inputs = { sampling: SAMPLING, parameters: LOADING };
  const made = Object.fromEntries(Object.entries(inputs).map(([group, all]) => [group, all.map(([key, label, step]) => [key, label, number(group, key, step)])]));
  const grid = (group) => h("div", { className: "grid" }, ...made[group].map(([key, label, input]) => field(label, input, origin(holds.get(`${group}.${key}`)))));
  const changesLoading = made.parameters.some(([, , input]) => input.value !== "");
  const node = h("div", {}, field("System prompt", system, origin(holds.get("system"))), grid("sampling"),
    h("details", { open: changesLoading }, h("summary", {}, "How it is loaded"), grid("parameters")));
  return { node, read(before) {
    const read = { system: system.value.trim() === "" ? undefined : system.value };
    for (const [group, all] of Object.entries(made)) {
      read[group] = { ...before[group] };
      for (const [key, , input] of all) {
        if (input.value === "") delete read[group][key];
        else read[group][key] = Number(input.value);
      }
    }
    return read;
  } };
}

function shown(held) {
  if (!held || held.value === null || held.value === undefined) return "";
  return typeof held.value === "object" ? JSON.stringify(held.value) : String(held.value);
}

/** Where a value comes from, in short: the file and its line, without its folder and key. The list of all has it whole. */
function origin(held) {
  if (!held || held.origin === "default") return null;
  const line = /([^\\/]+\.ya?ml)(:\d+)?/.exec(held.origin);
  return `from ${line ? line[1] + (line[2] ?? "") : held.origin}`;
}

function allOf(holds) {
  const rows = holds.filter((each) => each.value !== null).map((each) => h("tr", {}, h("th", { scope: "row" }, each.name), h("td", {}, shown(each)), h("td", { className: "soft" }, each.origin)));
  return h("div", { className: "scroll holds", tabIndex: 0, role: "region", "aria-label": "All that holds" }, h("table", {}, h("thead", {}, h("tr", {}, ...["Setting", "Value", "From"].map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, ...rows)));
}

/** Without what is empty: leaving a field out is saying nothing. */
function trimmed(entry) {
  const isEmpty = (value) => value === undefined || value === null || (typeof value === "object" && Object.keys(value).length === 0);
  return Object.fromEntries(Object.entries(entry).filter(([key, value]) => !isEmpty(value) || key === "profiles" && Object.keys(value ?? {}).length));
}
