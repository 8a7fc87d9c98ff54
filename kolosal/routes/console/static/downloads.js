// Downloads: what is being fetched, how far it is, and what can be done about it.

import { call, get } from "./api.js";
import { button, confirmed, h, setText, toast } from "./dom.js";
import { bytes, duration, plural } from "./format.js";

const POLL_MS = 1000;
const STATES = { downloading: "Downloading", paused: "Paused", creating_engine: "Adding the engine", completed: "Here", failed: "Failed", cancelled: "Cancelled" };
const GOES_ON = ["downloading", "creating_engine"];

const path = (id, action = "") => `v1/downloads/${encodeURIComponent(id)}${action}`;

/** The list; `onArrived` is told of each model that is there now. `node`, `refresh`, `close`. */
export function downloadList(session, onArrived) {
  const boxes = new Map(); // id → its card
  const states = new Map(); // id → its status of the time before
  const list = h("div", { className: "downloads" });
  const node = h("section", { "aria-label": "Downloads", hidden: true }, h("h2", {}, "Downloads"), list);
  let closed = false;
  let pending = null;

  async function refresh() {
    clearTimeout(pending);
    pending = null;
    if (closed || document.body.classList.contains("away")) return;
    try {
      const { downloads } = await get("v1/downloads");
      if (closed) return;
      for (const each of downloads.reverse()) take(each);
      const ids = new Set(downloads.map((each) => each.model_id));
      for (const id of boxes.keys()) if (!ids.has(id)) drop(id);
      node.hidden = boxes.size === 0;
      if (downloads.some((each) => GOES_ON.includes(each.status))) soon(document.hidden ? 5 * POLL_MS : POLL_MS);
    } catch (error) {
      if (!closed && error.status && error.status !== 401) toast(error.message, "bad");
    }
  }

  function soon(ms) {
    pending ??= setTimeout(refresh, ms);
  }

  function take(download) {
    const id = download.model_id;
    const before = states.get(id);
    states.set(id, download.status);
    if (before && before !== download.status && download.status === "completed") {
      toast(`${id} is here`);
      onArrived();
    }
    if (!boxes.has(id)) {
      boxes.set(id, card(id));
      list.append(boxes.get(id).node);
    }
    boxes.get(id).update(download);
  }

  function drop(id) {
    boxes.get(id).node.remove();
    boxes.delete(id);
    states.delete(id);
  }

  async function act(id, method, action) {
    try {
      await call(method, path(id, action));
    } catch (error) {
      toast(`${id}: ${error.message}`, "bad");
    }
    refresh();
  }

  function card(id) {
    const state = h("span", { className: "pill" });
    const bar = h("div", { className: "bar", role: "progressbar", "aria-label": `Progress of ${id}`, "aria-valuemin": 0, "aria-valuemax": 100 }, h("i"));
    const words = h("p", { className: "soft numbers" });
    const wrong = h("p", { className: "error", role: "alert", hidden: true });
    const named = { label: (text) => ({ "aria-label": `${text} ${id}` }) };
    const pause = button("Pause", () => act(id, "POST", "/pause"), "", named.label("Pause"));
    const resume = button("Resume", () => act(id, "POST", "/resume"), "", named.label("Resume"));
    const cancel = button("Cancel", async () => {
      if (await confirmed(`Cancel ${id}?`, "What has arrived of it is removed.", "Cancel the download")) act(id, "DELETE");
    }, "quiet", named.label("Cancel"));
    const dismiss = button("Dismiss", () => act(id, "DELETE"), "quiet", named.label("Dismiss"));
    const chat = h("a", { className: "button", "aria-label": `Chat with ${id}` }, "Chat");
    const node = h("article", { className: "card download", "aria-label": id },
      h("header", { className: "row apart" }, h("h3", {}, id), state), bar, wrong,
      h("div", { className: "row apart" }, words, h("div", { className: "row" }, chat, pause, resume, cancel, dismiss)));
    return { node, update(download) {
      const { status, progress } = download;
      const percent = Math.floor(progress.percentage);
      const ended = status === "completed" || status === "cancelled";
      state.dataset.state = { completed: "ready", failed: "failed", downloading: "loading", creating_engine: "loading" }[status] ?? "";
      setText(state, download.queued && status === "downloading" ? "Waiting its turn" : STATES[status]);
      bar.firstChild.style.width = `${progress.percentage}%`;
      bar.setAttribute("aria-valuenow", percent);
      bar.hidden = ended;
      setText(words, sentence(download));
      setText(wrong, download.error_message ?? "");
      wrong.hidden = !download.error_message;
      chat.href = `#/chat?engine=${encodeURIComponent(download.engine_creation?.engine_id ?? download.model ?? id)}`;
      chat.hidden = status !== "completed";
      pause.hidden = status !== "downloading";
      resume.hidden = status !== "paused" && status !== "failed" && status !== "cancelled";
      setText(resume, status === "paused" ? "Resume" : "Try again");
      cancel.hidden = ended || status === "failed";
      dismiss.hidden = !ended && status !== "failed";
    } };
  }

  const off = session.on((kind) => (kind === "download.state" || kind === "back") && refresh());
  return { node, refresh, close() {
    closed = true;
    off();
    clearTimeout(pending);
  } };
}

/** How far it is, and how long it may take. */
function sentence({ status, progress, timing, files, queued }) {
  const size = progress.total_bytes ? bytes(progress.total_bytes) : "size unknown";
  if (status === "completed") return `${size}${files > 1 ? ` in ${plural(files, "file")}` : ""}, in ${duration(timing.elapsed_seconds)}`;
  if (status === "cancelled") return size;
  const parts = [`${bytes(progress.downloaded_bytes)} of ${size}`, `${Math.floor(progress.percentage)} %`];
  if (status === "downloading" && !queued) {
    if (progress.percentage >= 100) return `${size}, being verified`;
    parts.push(`${bytes(progress.download_speed_bps)}/s`);
    if (timing.estimated_remaining_seconds !== undefined) parts.push(`${duration(timing.estimated_remaining_seconds)} left`);
  }
  return parts.join(" · ");
}
