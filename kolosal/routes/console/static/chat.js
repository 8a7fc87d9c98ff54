// Chat: any engine, or two side by side with the same prompts.

import { ApiError, call, get, stream } from "./api.js";
import { asMarkdown, forget, keep, load, title } from "./chat_store.js";
import { button, copyText, dialog, empty, field, h, saveFile, setMarkdown, setText, toast } from "./dom.js";
import { count, milliseconds, rate } from "./format.js";

const RENDER_MS = 1000; // how often Markdown is made of an answer that grows
const SAMPLING = [
  ["temperature", "Temperature", 0, 2, 0.1],
  ["top_p", "Top p", 0, 1, 0.05],
  ["max_tokens", "Length at most", 1, 100000, 1],
  ["seed", "Seed", 0, 4294967295, 1],
];

const fresh = () => ({ id: crypto.randomUUID?.() ?? String(Math.random()).slice(2), turns: [], system: "", sampling: {}, tools: "", models: [] });

export function view(root, session, query) {
  let chat = fresh();
  let engines = [];
  let running = []; // of the answers that are being made: what stops each
  let closed = false;

  const chats = h("select", { "aria-label": "Conversations", onchange: () => open(load().find((each) => each.id === chats.value) ?? fresh()) });
  const pickers = [picker("Engine"), picker("Second engine")];
  const list = h("div", { className: "turns", "aria-live": "off" });
  const input = h("textarea", { rows: 3, placeholder: "Ask something. Enter sends, Shift+Enter is a new line.", "aria-label": "Message", onkeydown: (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  } });
  const sendButton = button("Send", () => send(), "primary");
  const stopButton = button("Stop", stop, "danger");
  const actions = h("div", { className: "row" }, chats, button("New", () => open(fresh())), button("Settings …", settings), button("Export …", exported, "quiet"), button("Delete", remove, "quiet"));
  const composer = h("form", { className: "composer", onsubmit: (event) => {
    event.preventDefault();
    send();
  } }, input, h("div", { className: "row apart" }, h("div", { className: "row" }, ...pickers), h("div", { className: "row" }, stopButton, sendButton)));
  root.append(h("div", { className: "toolbar" }, actions), list, composer);

  function picker(label) {
    return h("select", { "aria-label": label, onchange: () => {
      chat.models = pickers.map((each) => each.value);
      store();
    } });
  }

  async function loadEngines() {
    try {
      engines = usable(await get("v1/models"));
      fill();
      draw();
    } catch (error) {
      if (error.status && error.status !== 401) toast(error.message, "bad");
    }
  }

  function fill() {
    const wanted = [chat.models[0] || query.get("engine") || engines[0] || "", chat.models[1] || ""];
    pickers.forEach((select, index) => {
      const options = engines.map((id) => h("option", { value: id }, id));
      select.replaceChildren(...(index ? [h("option", { value: "" }, "No second engine")] : []), ...options);
      select.value = engines.includes(wanted[index]) ? wanted[index] : index ? "" : (engines[0] ?? "");
    });
    pickers[1].hidden = engines.length < 2;
    sendButton.disabled = engines.length === 0;
    const known = load();
    chats.replaceChildren(h("option", { value: "" }, "Conversations"), ...known.map((each) => h("option", { value: each.id }, title(each))));
    chats.value = known.some((each) => each.id === chat.id) ? chat.id : "";
    chats.hidden = known.length === 0;
  }

  function open(other) {
    stop();
    chat = other;
    fill();
    draw();
    input.focus();
  }

  function store() {
    if (chat.turns.length) keep({ ...chat, turns: chat.turns.map(plain) });
  }

  async function send() {
    const text = input.value.trim();
    if (!text || running.length || !engines.length) return;
    input.value = "";
    chat.turns.push({ role: "user", content: text });
    await answer();
  }

  /** Has the engines go on from the last message of the user. */
  async function answer() {
    let tools;
    try {
      tools = chat.tools.trim() ? JSON.parse(chat.tools) : undefined;
    } catch (error) {
      toast(`Tools: ${error.message}`, "bad");
      return;
    }
    const models = pickers.map((each) => each.value).filter((id, index) => id && (index === 0 || !pickers[index].hidden));
    const turn = { role: "assistant", answers: models.map((model) => ({ model, content: "", reasoning: "", calls: [] })) };
    chat.models = pickers.map((each) => each.value);
    chat.turns.push(turn);
    draw();
    const boxes = list.lastChild.querySelectorAll(".answer");
    const jobs = turn.answers.map((each, index) => generate(each, index, tools, boxes[index]));
    buttons();
    await Promise.all(jobs);
    running = [];
    if (closed) return;
    store();
    fill();
    draw();
  }

  async function generate(made, index, tools, box) {
    const control = new AbortController();
    running.push(control);
    const shown = answerBox(box);
    const started = performance.now();
    let first = null;
    const body = { model: made.model, messages: messages(index), stream: true, stream_options: { include_usage: true }, tools, ...chat.sampling };
    const renewal = setInterval(() => shown.render(made), RENDER_MS);
    try {
      await stream("POST", "v1/chat/completions", body, control.signal, (_, data) => {
        if (!data) return;
        if (data.error) throw new ApiError(500, data.error.message);
        const delta = data.choices?.[0]?.delta;
        if (delta?.content || delta?.reasoning_content || delta?.tool_calls) first ??= performance.now();
        made.content += delta?.content ?? "";
        made.reasoning += delta?.reasoning_content ?? delta?.reasoning ?? "";
        for (const part of delta?.tool_calls ?? []) addCall(made.calls, part);
        if (data.usage) made.usage = { in: data.usage.prompt_tokens, out: data.usage.completion_tokens, cached: data.usage.prompt_tokens_details?.cached_tokens ?? 0 };
        shown.grow(made);
      });
      if (control.signal.aborted) made.stopped = true;
    } catch (error) {
      if (control.signal.aborted) made.stopped = true;
      else made.error = error.message;
    }
    clearInterval(renewal);
    if (first !== null) {
      made.ttft_ms = first - started;
      const seconds = (performance.now() - first) / 1000;
      if (made.usage?.out > 1 && seconds > 0) made.speed = (made.usage.out - 1) / seconds;
    }
  }

  /** What the engine at that place was told and said so far. */
  function messages(index) {
    const said = chat.system ? [{ role: "system", content: chat.system }] : [];
    for (const turn of chat.turns.slice(0, -1)) {
      if (turn.role === "user") said.push({ role: "user", content: turn.content });
      else said.push({ role: "assistant", content: (turn.answers[index] ?? turn.answers[0]).content });
    }
    return said;
  }

  function stop() {
    for (const control of running) control.abort();
    running = [];
    buttons();
  }

  function buttons() {
    stopButton.hidden = running.length === 0;
    sendButton.hidden = running.length > 0;
  }

  function again(at) {
    if (running.length) return;
    chat.turns.length = at;
    answer();
  }

  function edit(at) {
    if (running.length) return;
    input.value = chat.turns[at].content;
    chat.turns.length = at;
    draw();
    input.focus();
  }

  function draw() {
    buttons();
    if (!engines.length) {
      list.replaceChildren(empty("No engine to talk to", h("p", {}, "Get a model under ", h("a", { href: "#/models" }, "Models"), ", or add one that lies elsewhere under ", h("a", { href: "#/engines" }, "Engines"), ".")));
      return;
    }
    if (!chat.turns.length) {
      list.replaceChildren(empty("What would you like to know?", h("p", { className: "soft" }, "Conversations stay in this browser. Choose a second engine to compare two answers to the same prompt.")));
      return;
    }
    list.replaceChildren(...chat.turns.map((turn, at) => (turn.role === "user" ? userTurn(turn, at) : assistantTurn(turn, at))));
    root.ownerDocument.scrollingElement.scrollTop = root.ownerDocument.scrollingElement.scrollHeight;
  }

  function userTurn(turn, at) {
    return h("article", { className: "turn user", "aria-label": "You" }, h("div", { className: "text plain-text" }, turn.content),
      h("div", { className: "row" }, button("Edit", () => edit(at), "quiet")));
  }

  function assistantTurn(turn, at) {
    const boxes = turn.answers.map((each) => {
      const box = h("article", { className: "answer", "aria-label": each.model });
      const shown = answerBox(box);
      shown.grow(each);
      if (!running.length && (each.content || each.error || each.usage)) shown.finish(each);
      return box;
    });
    const last = at === chat.turns.length - 1;
    return h("div", { className: "turn" }, h("div", { className: `answers n${boxes.length}` }, ...boxes),
      last ? h("div", { className: "row" }, button("Regenerate", () => again(at), "quiet")) : null);
  }

  async function settings() {
    const system = h("textarea", { rows: 4, value: chat.system });
    const tools = h("textarea", { rows: 5, value: chat.tools, placeholder: '[{"type": "function", "function": {"name": "…", "parameters": {…}}}]', spellcheck: false, className: "code" });
    const numbers = SAMPLING.map(([key, label, min, max, step]) => [key, label, h("input", { type: "number", min, max, step, value: chat.sampling[key] ?? "", placeholder: "the model's" })]);
    const wrong = h("p", { className: "bad", role: "alert" });
    await dialog("Settings of this conversation", (close) => h("form", { onsubmit: (event) => {
      event.preventDefault();
      try {
        if (tools.value.trim() && !Array.isArray(JSON.parse(tools.value))) throw new Error("must be an array");
      } catch (error) {
        setText(wrong, `Tools: ${error.message}`);
        return;
      }
      chat.system = system.value;
      chat.tools = tools.value;
      chat.sampling = Object.fromEntries(numbers.filter(([, , each]) => each.value !== "").map(([key, , each]) => [key, Number(each.value)]));
      store();
      close(true);
    } },
    field("System prompt", system, "What the model is told before the conversation."),
    h("div", { className: "grid" }, ...numbers.map(([, label, each]) => field(label, each))),
    field("Tools", tools, "As JSON, in OpenAI's form. Calls are shown, not carried out."), wrong,
    h("div", { className: "row end" }, button("Cancel", () => close(false)), h("button", { className: "primary" }, "Use these"))));
  }

  async function exported() {
    if (!chat.turns.length) {
      toast("There is nothing to export yet");
      return;
    }
    const kind = await dialog("Export", (close) => h("div", { className: "row" }, button("Markdown", () => close("md")), button("JSON", () => close("json")), button("Cancel", () => close(), "quiet")));
    if (kind === "md") saveFile("conversation.md", "text/markdown", asMarkdown(chat));
    if (kind === "json") saveFile("conversation.json", "application/json", JSON.stringify({ ...chat, turns: chat.turns.map(plain) }, null, 2));
  }

  function remove() {
    forget(chat.id);
    open(fresh());
  }

  const off = session.on((kind) => (kind === "engine.state" || kind === "engine.removed" || kind === "back") && !running.length && refreshEngines());
  async function refreshEngines() {
    const before = engines.join("\n");
    const now = usable(await get("v1/models").catch(() => ({ data: [] })));
    if (closed || !now.length || now.join("\n") === before) return;
    engines = now;
    fill();
    if (!chat.turns.length) draw();
  }
  loadEngines();
  return { close() {
    closed = true;
    stop();
    off();
  } };
}

/** What of a turn is kept: not what was made of it for the page. */
// Names that chats may have: what is being fetched has none yet.
function usable({ data }) {
  return data.filter((each) => each.status.value !== "downloading").map((each) => each.id);
}

function plain(turn) {
  return turn.role === "user" ? turn : { ...turn, answers: turn.answers.map(({ html, ...each }) => each) };
}

function addCall(calls, part) {
  const at = (calls[part.index ?? 0] ??= { name: "", arguments: "" });
  at.name += part.function?.name ?? "";
  at.arguments += part.function?.arguments ?? "";
}

/** The inside of one answer, filled as it comes. */
function answerBox(box) {
  const thought = h("details", { className: "thought" }, h("summary", {}, "Thoughts"), h("div", { className: "plain-text" }));
  const rendered = h("div", { className: "markdown" });
  const tail = h("div", { className: "plain-text" });
  const calls = h("div");
  const told = h("p", { className: "error", role: "alert", hidden: true });
  const foot = h("p", { className: "soft foot" });
  const name = h("h2");
  box.replaceChildren(name, thought, rendered, tail, calls, told, foot);
  let done = 0; // how much of the text stands in `rendered`
  let busy = false;

  async function render(made) {
    if (busy || done === made.content.length) return;
    busy = true;
    const upTo = made.content.length;
    try {
      made.html = (await call("POST", "v1/markdown", { text: made.content.slice(0, upTo) })).html;
      done = upTo;
      setMarkdown(rendered, made.html);
      setText(tail, made.content.slice(done));
    } catch {
      // it stays as plain text
    }
    busy = false;
  }

  return {
    render,
    grow(made) {
      setText(name, made.model);
      thought.hidden = !made.reasoning;
      setText(thought.lastChild, made.reasoning);
      if (!done && made.html) {
        setMarkdown(rendered, made.html);
        done = made.content.length;
      }
      setText(tail, made.content.slice(done));
      const pieces = made.calls.map((each) => h("pre", { className: "call" }, `${each.name}(${each.arguments})`));
      if (pieces.length) calls.replaceChildren(...pieces);
      box.classList.toggle("waiting", !made.content && !made.reasoning && !made.error && !made.stopped && !made.calls.length);
    },
    finish(made) {
      box.classList.remove("waiting");
      told.hidden = !made.error;
      setText(told, made.error ?? "");
      const facts = [];
      if (made.stopped) facts.push("stopped");
      if (made.speed) facts.push(`${rate(made.speed)} tokens/s`);
      if (made.ttft_ms !== undefined) facts.push(`first token ${milliseconds(made.ttft_ms)}`);
      if (made.usage) facts.push(`${count(made.usage.in)} in (${count(made.usage.cached)} cached), ${count(made.usage.out)} out`);
      foot.replaceChildren(facts.join(" · "), made.content ? button("Copy", () => copyText(made.content, rendered), "quiet") : "");
      render(made);
    },
  };
}
