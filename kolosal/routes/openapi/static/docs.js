// The page: reads openapi.json and shows it. All text goes in as text, never as HTML.

import { command } from "./examples.js";
import { kinds, nullable, objects, resolve, words } from "./schema.js";

const BASE = new URL(".", location.href).href;
const MAX_DEPTH = 6;
const KEY = "kolosal-key"; // as the console has it

function make(name, attributes = {}, ...children) {
  const node = Object.assign(document.createElement(name), attributes);
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Text whose `words` between backticks are code. */
function prose(text, name = "p", className = "") {
  const parts = text.split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));
  return make(name, { className }, ...parts);
}

/** What a field may be. Of a body null says nothing; of an answer every field is there unless told. */
function kindText(api, schema, required, isAnswer) {
  if (!isAnswer) return words(api, schema);
  if (!kinds(api, schema).length) return "null";
  return words(api, schema) + (nullable(api, schema) ? " or null" : "") + (required ? "" : ", may be missing");
}

function fieldItem(api, name, schema, required, depth, isAnswer) {
  const whole = resolve(api, schema);
  const head = make("p", {}, make("span", { className: "name" }, name), " ");
  if (required && !isAnswer) head.append(make("span", { className: "required" }, "required"), " ");
  head.append(make("span", { className: "soft" }, kindText(api, schema, required, isAnswer)));
  if (whole.default !== undefined && kinds(api, schema).length) {
    head.append(make("span", { className: "soft" }, " · default "), make("code", {}, JSON.stringify(whole.default)));
  }
  const item = make("li", {}, head);
  const told = schema.description ?? whole.description;
  if (told) item.append(prose(told));
  if (depth < MAX_DEPTH) item.append(...objects(api, schema).map((each) => nested(api, each, depth, isAnswer)));
  return item;
}

/** The fields of an object inside, made when they are first looked at: types may hold themselves. */
function nested(api, schema, depth, isAnswer) {
  const box = make("details", { className: "more" }, make("summary", {}, `Fields of ${schema.title ?? "each"}`));
  box.addEventListener("toggle", () => box.append(fieldList(api, schema, depth + 1, isAnswer)), { once: true });
  return box;
}

function fieldList(api, schema, depth = 0, isAnswer = false) {
  const required = schema.required ?? [];
  const names = Object.keys(schema.properties ?? {});
  const sorted = [...names.filter((n) => required.includes(n)), ...names.filter((n) => !required.includes(n))];
  const items = sorted.map((n) => fieldItem(api, n, schema.properties[n], required.includes(n), depth, isAnswer));
  return make("ul", { className: "fields" }, ...items);
}

function exampleBox(verb, url, body, streams) {
  const pre = make("pre");
  const copy = make("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(pre.textContent);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(pre); // no clipboard without https: select it at least
      copy.textContent = "Selected";
    }
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  const box = make("div", { className: "example" }, copy, pre);
  box.show = (shell) => (pre.textContent = command(shell, verb, url, body, streams));
  box.show(document.querySelector("[name=shell]:checked").value);
  return box;
}

function examples(path, verb, operation) {
  const content = operation.requestBody?.content["application/json"];
  if (operation.requestBody && content?.example === undefined) return [];
  const url = BASE + path.slice(1).replace(/\{(\w+)\}/g, (_, name) => SAMPLE[name] ?? `<${name}>`);
  const boxes = [make("h3", {}, "Example"), exampleBox(verb, url, content?.example, false)];
  const kinds = Object.keys(success(operation)[1].content ?? {});
  if (!content || !kinds.some((kind) => kind === "text/event-stream" || kind === "application/x-ndjson")) return boxes;
  return [...boxes, prose("The same as a stream:"), exampleBox(verb, url, { ...content.example, stream: true }, true)];
}

const SAMPLE = { engine_id: "tiny", model: "tiny", file: "docs.css" };

/** Its good answer; of what can only be refused, the refusal. */
function success(operation) {
  const all = Object.entries(operation.responses);
  return all.find(([status]) => status.startsWith("2")) ?? all[0];
}

function answers(api, operation) {
  const [status, answer] = success(operation);
  const types = Object.keys(answer.content ?? {}).join(" or ");
  const nodes = [make("h3", {}, "Answer"), prose(`\`${status}\` ${answer.description} (${types})`)];
  const schema = resolve(api, answer.content?.["application/json"]?.schema);
  if (schema.properties) nodes.push(fieldList(api, schema, 0, true));
  const errors = Object.entries(operation.responses).filter(([code]) => code !== status);
  const items = errors.map(([code, error]) => prose(`\`${code}\` ${resolve(api, error).description}`, "li"));
  return [...nodes, make("details", { className: "more" }, make("summary", {}, "Errors"), make("ul", {}, ...items))];
}

function inside(api, path, verb, operation, aliases) {
  const nodes = [];
  if (operation.description) nodes.push(...operation.description.split("\n\n").map((part) => prose(part)));
  if (aliases.length) nodes.push(prose(`Also at ${aliases.map((alias) => `\`${alias}\``).join(", ")}.`));
  if (operation.parameters) {
    const items = operation.parameters.map((p) =>
      fieldItem(api, p.name, { ...p.schema, description: p.description }, p.required, 0, false));
    nodes.push(make("h3", {}, "Parameters"), make("ul", { className: "fields" }, ...items));
  }
  const schema = bodySchema(operation);
  if (schema) nodes.push(make("h3", {}, "Body"), ...objects(api, schema).map((each) => fieldList(api, each)));
  return [...nodes, ...examples(path, verb, operation), ...answers(api, operation)];
}

function operationBox(api, { path, verb, operation, aliases }) {
  const summary = make("summary", {},
    make("span", { className: `verb ${verb}` }, verb.toUpperCase()),
    make("span", { className: "path" }, path),
    prose(operation.summary, "span", "soft"));
  const box = make("details", { className: "operation", id: operation.operationId }, summary);
  box.addEventListener("toggle", () => {
    box.append(make("div", { className: "inside" }, ...inside(api, path, verb, operation, aliases)));
  }, { once: true });
  box.words = searched(api, path, operation, aliases);
  return box;
}

/** That of a request's body, JSON or a form. */
function bodySchema(operation) {
  return Object.values(operation.requestBody?.content ?? {})[0]?.schema;
}

/** What the filter looks through. */
function searched(api, path, operation, aliases) {
  const body = bodySchema(operation);
  const fields = body ? objects(api, body).flatMap((each) => Object.keys(each.properties)) : [];
  return [path, ...aliases, operation.summary, operation.description ?? "", ...fields].join(" ").toLowerCase();
}

function operations(api) {
  const all = Object.entries(api.paths).flatMap(([path, verbs]) =>
    Object.entries(verbs).map(([verb, operation]) => ({ path, verb, operation, aliases: [] })));
  for (const { path, verb, operation } of all) {
    const main = all.find((each) => each.path === operation["x-alias-of"] && each.verb === verb);
    main?.aliases.push(path);
  }
  return all.filter(({ operation }) => !operation["x-alias-of"]);
}

function group(api, tag, found) {
  const boxes = found.filter(({ operation }) => operation.tags.includes(tag.name)).map((each) => operationBox(api, each));
  return make("section", {}, make("h2", {}, tag.name), prose(tag.description, "p", "soft"), ...boxes);
}

function filter(text) {
  const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const section of document.querySelectorAll("section")) {
    const boxes = [...section.querySelectorAll(".operation")];
    for (const box of boxes) box.hidden = !wanted.every((word) => box.words.includes(word));
    section.hidden = boxes.every((box) => box.hidden);
  }
}

function openLinked() {
  const box = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!box?.classList.contains("operation")) return;
  box.open = true;
  box.scrollIntoView();
}

function listen() {
  const controls = document.getElementById("controls");
  controls.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("filter").addEventListener("input", (event) => filter(event.target.value));
  controls.addEventListener("change", (event) => {
    if (event.target.name !== "shell") return;
    for (const box of document.querySelectorAll(".example")) box.show(event.target.value);
  });
  addEventListener("hashchange", openLinked);
}

/** The document; null where the daemon wants a key, or another one. The key stays in this tab. */
async function fetchDocument() {
  const key = sessionStorage.getItem(KEY);
  const answer = await fetch("openapi.json", key ? { headers: { authorization: `Bearer ${key}` } } : {});
  if (answer.status === 401 || answer.status === 429) return null;
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.json();
}

function keyForm() {
  const field = make("input", { type: "password", autocomplete: "current-password", required: true, id: "key" });
  const told = sessionStorage.getItem(KEY) ? "That key is not valid here. Another one:" : "This daemon needs an API key:";
  const form = make("form", { id: "login" }, make("label", { htmlFor: "key" }, told), field, make("button", {}, "Show"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, field.value.trim());
    start();
  });
  return form;
}

async function start() {
  const main = document.getElementById("groups");
  try {
    const api = await fetchDocument();
    if (!api) {
      main.replaceChildren(keyForm());
      return;
    }
    document.getElementById("version").textContent = api.info.version;
    document.getElementById("about").replaceWith(prose(api.info.description));
    main.replaceChildren(...api.tags.map((tag) => group(api, tag, operations(api))));
    listen();
    openLinked();
  } catch (error) {
    main.replaceChildren(make("p", {}, `openapi.json could not be shown: ${error.message}`));
  }
}

start();
