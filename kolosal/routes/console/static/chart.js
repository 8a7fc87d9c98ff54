// One chart: lines over the last quarter of an hour, as plain SVG.

import { h, s, setText } from "./dom.js";

const WIDTH = 600;
const HEIGHT = 150;
const SPAN_MS = 15 * 60 * 1000;
const GAP_MS = 6000; // a longer silence is a gap in the line

/** `lines`: [name, class]; `format` for values; `show(points, ceiling)` with [time, [value of each line]], the oldest first. */
export function chart(title, lines, format) {
  const paths = lines.map(([, kind]) => s("path", { class: `line ${kind}` }));
  const drawing = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, ...[0.25, 0.5, 0.75].map((part) => s("line", { x1: 0, x2: WIDTH, y1: HEIGHT * part, y2: HEIGHT * part, class: "grid" })), ...paths.toReversed());
  const label = h("span", { className: "soft top" });
  const now = lines.map(([name, kind]) => h("span", { className: `key ${kind}` }, name, " ", h("b")));
  const node = h("figure", { className: "card chart" }, h("figcaption", {}, h("h2", {}, title), h("div", { className: "row" }, ...now)), h("div", { className: "plot" }, drawing, label),
    h("div", { className: "row apart soft" }, h("span", {}, "15 min ago"), h("span", {}, "now")));

  function show(points, ceiling = 0) {
    const end = points.length ? points.at(-1)[0] : Date.now();
    const values = points.flatMap(([, all]) => all).filter((value) => value !== null);
    const most = Math.max(ceiling, ...values) || 1;
    lines.forEach((_, index) => paths[index].setAttribute("d", path(points, index, end, most)));
    const latest = points.at(-1)?.[1] ?? [];
    now.forEach((key, index) => setText(key.lastChild, format(latest[index] ?? null)));
    setText(label, values.length ? format(most) : "");
    const spoken = lines.map(([name], index) => `${name} ${format(latest[index] ?? null)}`).join(", ");
    drawing.setAttribute("aria-label", `${title}: now ${spoken}; at most ${format(most)} in the last 15 minutes`);
  }

  return { node, show };
}

function path(points, index, end, most) {
  let text = "";
  let before = -Infinity;
  for (const [time, values] of points) {
    const value = values[index];
    if (value === null) continue;
    const x = WIDTH - ((end - time) / SPAN_MS) * WIDTH;
    const y = HEIGHT - 2 - (value / most) * (HEIGHT - 8);
    text += `${time - before > GAP_MS ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
    before = time;
  }
  return text;
}
