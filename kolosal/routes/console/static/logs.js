// Logs: the daemon's own, and those of each engine's process.

import { enginePath, get, stream } from "./api.js";
import { button, copyText, h, setText, toast } from "./dom.js";
import { plural } from "./format.js";

const KEPT = 2000;

export function view(root, session, query) {
  let lines = [];
  let control = null;
  let frame = null;
  const source = h("select", { "aria-label": "Whose log", onchange: follow });
  const filter = h("input", { type: "search", placeholder: "Filter lines", "aria-label": "Filter", oninput: draw });
  const stick = h("input", { type: "checkbox", checked: true });
  const total = h("span", { className: "soft", role: "status" });
  const pre = h("pre", { className: "log", tabIndex: 0, role: "region", "aria-label": "Log lines" });
  root.append(h("div", { className: "toolbar" }, source, filter, h("label", { className: "check" }, stick, " Follow"), button("Copy", () => copyText(chosen().join("\n"), pre)), total), pre);

  async function sources() {
    try {
      const { engines } = await get("v1/engines");
      const wanted = source.value || query.get("engine") || "";
      source.replaceChildren(h("option", { value: "" }, "The daemon"), ...engines.map(({ engine_id: id }) => h("option", { value: id }, id)));
      source.value = engines.some(({ engine_id: id }) => id === wanted) ? wanted : "";
    } catch (error) {
      if (error.status) toast(error.message, "bad");
    }
  }

  async function follow() {
    control?.abort();
    const mine = (control = new AbortController());
    lines = [];
    draw();
    const path = source.value ? `${enginePath(source.value)}/logs` : "v1/logs";
    try {
      await stream("GET", `${path}?follow=true&tail=${KEPT}`, undefined, mine.signal, (kind, data) => {
        lines.push(kind === "lines.lost" ? `(${plural(data.lost, "line")} came too fast)` : data.line);
        if (lines.length > KEPT) lines.splice(0, lines.length - KEPT);
        frame ??= requestAnimationFrame(draw);
      });
    } catch (error) {
      if (!mine.signal.aborted && error.status) toast(error.message, "bad");
    }
  }

  function chosen() {
    const words = filter.value.toLowerCase();
    return words ? lines.filter((line) => line.toLowerCase().includes(words)) : lines;
  }

  function draw() {
    frame = null;
    const shown = chosen();
    pre.replaceChildren(...shown.map((line) => h("span", { className: kindOf(line) }, `${line}\n`)));
    setText(total, lines.length ? plural(shown.length, "line") : "Nothing was written yet. A model that loads well often writes nothing.");
    if (stick.checked) pre.scrollTop = pre.scrollHeight;
  }

  sources().then(follow);
  const off = session.on((kind) => kind === "back" && sources().then(follow));
  return { close() {
    control?.abort();
    off();
  } };
}

function kindOf(line) {
  if (/\b(ERROR|CRITICAL|error|failed|abort)/.test(line)) return "bad";
  return /\b(WARNING|warn)/.test(line) ? "warn" : "";
}
