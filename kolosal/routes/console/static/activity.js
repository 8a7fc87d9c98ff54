// Activity: who asked which model, and how that went. Only the rows that are seen are in the page.

import { get, stream } from "./api.js";
import { button, copyText, dialog, empty, h, setText, toast } from "./dom.js";
import { clock, count, milliseconds, plural, rate } from "./format.js";

const KEPT = 10000;
const ROW_PX = 36;
const RUNNING_MS = 1000;
const COLUMNS = [
  ["Time", (row) => clock(row.time)], ["Outcome", (row) => (row.message ? `${row.outcome}: ${row.message}` : row.outcome), "outcome"], ["API", (row) => row.dialect], ["Model", (row) => row.model ?? "–"], ["Key", (row) => row.key ?? "–"],
  ["In", (row) => count(row.prompt_tokens), "number"], ["Cached", (row) => count(row.cached_tokens), "number"], ["Out", (row) => count(row.completion_tokens), "number"],
  ["First token", (row) => milliseconds(row.ttft_ms), "number"], ["Tokens/s", (row) => rate(row.tokens_per_s), "number"], ["Took", (row) => milliseconds(row.duration_ms), "number"],
];

export function view(root, session) {
  let rows = []; // the newest first
  let running = [];
  let seen = []; // what the filter lets through
  let last = null;
  let paused = false;
  let frame = null;
  const control = new AbortController();

  const warning = h("p", { className: "notice bad", hidden: true }, "Bodies are captured: prompts and answers are kept in the daemon's memory. The setting is ", h("code", {}, "activity.capture_bytes"), ".");
  const filter = h("input", { type: "search", placeholder: "Filter by model, key, API, outcome, id", "aria-label": "Filter", oninput: sift });
  const outcome = h("select", { "aria-label": "Outcome", onchange: sift }, ...[["", "All outcomes"], ["running", "Running"], ["completed", "Completed"], ["failed", "Failed"], ["cancelled", "Cancelled"]].map(([value, text]) => h("option", { value }, text)));
  const pause = button("Pause", () => {
    paused = !paused;
    setText(pause, paused ? "Go on" : "Pause");
    if (!paused) sift();
  });
  const total = h("span", { className: "soft", role: "status" });
  const body = h("tbody");
  const head = h("thead", {}, h("tr", {}, ...COLUMNS.map(([text, , kind]) => h("th", { scope: "col", className: kind ?? "" }, text))));
  const table = h("table", { "aria-label": "Requests" }, head, body);
  const box = h("div", { className: "scroll tall", tabIndex: 0, role: "region", "aria-label": "Requests, scrollable", onscroll: () => later() }, table);
  const nothing = empty("No request yet", h("p", {}, "Every request for inference is listed here, whatever API it speaks. Try one:"), h("pre", { tabIndex: 0 }, `curl ${location.origin}/v1/chat/completions -d '{"model": "NAME", "messages": [{"role": "user", "content": "Hi"}]}'`));
  root.append(warning, h("div", { className: "toolbar" }, filter, outcome, pause, total), box, nothing);

  async function begin() {
    try {
      const found = await get(`v1/activity?limit=${KEPT}`);
      rows = found.requests;
      running = found.running;
      last = found.last_id;
      warning.hidden = !found.capturing;
      sift();
      await stream("GET", `v1/activity?follow=true&after=${encodeURIComponent(last)}`, undefined, control.signal, (kind, row) => {
        if (kind === "request") {
          rows.unshift(row);
          if (rows.length > KEPT) rows.length = KEPT;
          if (!paused) later(true);
        } else if (kind === "requests.lost") toast(`${row.lost ? plural(row.lost, "request") : "Some requests"} came faster than they could be shown`);
      });
    } catch (error) {
      if (!control.signal.aborted && error.status) toast(error.message, "bad");
    }
  }

  async function lookAtRunning() {
    if (document.hidden || paused || document.body.classList.contains("away")) return;
    try {
      running = (await get("v1/activity?limit=0")).running.reverse();
      sift();
    } catch {
      // the frame of the page says when the daemon is away
    }
  }

  function sift() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = (row) => (!outcome.value || row.outcome === outcome.value)
      && words.every((word) => [row.model, row.key, row.dialect, row.outcome, row.error, row.message, row.path, row.request_id].join(" ").toLowerCase().includes(word));
    seen = [...running, ...rows].filter(wanted);
    setText(total, rows.length || running.length ? `${plural(seen.length, "request")}${words.length || outcome.value ? ` of ${count(rows.length + running.length)}` : ""}` : "");
    nothing.hidden = rows.length + running.length > 0;
    box.hidden = !nothing.hidden;
    draw();
  }

  function later(changed = false) {
    frame ??= requestAnimationFrame(() => {
      frame = null;
      (changed ? sift : draw)();
    });
  }

  /** Puts the rows that are seen between two of the height of all others. */
  function draw() {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW_PX) - 10);
    const shown = seen.slice(first, first + Math.ceil((box.clientHeight || 600) / ROW_PX) + 20);
    const focused = document.activeElement?.dataset?.row;
    table.setAttribute("aria-rowcount", seen.length + 1);
    body.replaceChildren(spacer(first), ...shown.map((row, index) => line(row, first + index)), spacer(seen.length - first - shown.length));
    if (focused) body.querySelector(`[data-row="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  begin();
  const timer = setInterval(lookAtRunning, RUNNING_MS);
  const off = session.on((kind) => kind === "back" && begin());
  return { close() {
    control.abort();
    clearInterval(timer);
    off();
  } };
}

function spacer(n) {
  const cell = h("td", { colSpan: COLUMNS.length });
  cell.style.height = `${Math.max(0, n) * ROW_PX}px`;
  return h("tr", { className: "space", "aria-hidden": "true", hidden: n <= 0 }, cell);
}

function line(row, index) {
  const cells = COLUMNS.map(([, text, kind], at) => h("td", { className: kind ?? "" }, at === 0 ? open(row, text(row)) : text(row)));
  cells[1].title = row.message ?? "";
  return h("tr", { "data-outcome": row.outcome, "aria-rowindex": index + 2 }, ...cells);
}

function open(row, text) {
  return button(text, () => details(row), "quiet", { "data-row": row.id ?? row.request_id, "aria-label": `${text}: all about this request` });
}

async function details(row) {
  const names = { request_id: "Request id", path: "Path", dialect: "API", model: "Model", key: "API key", status: "HTTP status", outcome: "Outcome", error: "Error", message: "What the client was told", prompt_tokens: "Tokens in", cached_tokens: "of them cached", completion_tokens: "Tokens out", ttft_ms: "First token", duration_ms: "Took", tokens_per_s: "Tokens/s" };
  const shown = { ...row, ttft_ms: milliseconds(row.ttft_ms), duration_ms: milliseconds(row.duration_ms), tokens_per_s: rate(row.tokens_per_s), status: row.status || "–" };
  const facts = Object.entries(names).filter(([key]) => shown[key] !== null).flatMap(([key, label]) => [h("dt", {}, label), h("dd", {}, String(shown[key]))]);
  const bodies = row.captured ? await get(`v1/activity/${encodeURIComponent(row.id)}`).catch(() => null) : null;
  const parts = [["Request", bodies?.request_body], ["Answer", bodies?.response_body]].filter(([, text]) => text).map(([label, text]) => {
    const pre = h("pre", { tabIndex: 0 }, text);
    return h("section", {}, h("div", { className: "row apart" }, h("h3", {}, label), button("Copy", () => copyText(text, pre), "quiet")), pre);
  });
  await dialog("Request", (close) => [h("dl", {}, ...facts), ...parts,
    h("div", { className: "row end" }, button("Copy the id", () => copyText(row.request_id ?? ""), "quiet"), button("Close", () => close(), "primary"))]);
}
