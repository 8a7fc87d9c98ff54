// Metrics: the last quarter of an hour. The daemon keeps it, so it is there when the page is opened.

import { get } from "./api.js";
import { chart } from "./chart.js";
import { h } from "./dom.js";
import { bytes, count, milliseconds, rate } from "./format.js";

const KEPT = 450;

export function view(root, session) {
  const charts = [
    [chart("Tokens a second", [["out", "a"], ["in", "b"]], rate), (row) => [row.output_tokens_per_s, row.prompt_tokens_per_s]],
    [chart("Requests", [["running", "a"], ["ended a second", "b"], ["failed a second", "c"]], rate), (row) => [row.running, row.requests_per_s, row.failed_per_s]],
    [chart("First token", [["median", "a"], ["95 of 100", "b"]], milliseconds), (row) => [row.ttft_p50_ms, row.ttft_p95_ms]],
    [chart("KV cache", [["in use", "a"], ["there is", "b"]], count), (row) => [row.kv_cells, row.kv_pool_tokens]],
    [chart("Memory of the machine", [["in use", "a"], ["our processes", "b"]], bytes), (row) => [row.memory_used_bytes, row.workers_bytes], (row) => row.memory_total_bytes],
    [chart("Processor", [["busy", "a"]], (value) => (value === null ? "–" : `${Math.round(value)} %`)), (row) => [row.cpu_percent], () => 100],
  ];
  const gpus = [chart("Memory of GPUs", [["in use", "a"], ["there is", "b"]], bytes), (row) => [row.gpu_used_bytes, row.gpu_total_bytes]];
  const grid = h("div", { className: "charts" }, ...charts.map(([each]) => each.node));
  root.append(grid, h("p", { className: "soft" }, "The same for Prometheus: ", h("code", {}, "/metrics/prometheus"), "."));
  let rows = [];
  let timer = null;
  let closed = false;

  async function poll() {
    try {
      if (!document.hidden) {
        const { columns, rows: fresh } = await get(`v1/metrics/history?after=${rows.at(-1)?.time ?? 0}`);
        if (closed) return;
        rows = [...rows, ...fresh.map((row) => Object.fromEntries(columns.map((name, index) => [name, row[index]])))].slice(-KEPT);
        if (rows.at(-1)?.gpu_total_bytes && !charts.includes(gpus)) {
          charts.push(gpus);
          grid.append(gpus[0].node);
        }
        if (fresh.length) for (const [each, values, ceiling] of charts) each.show(rows.map((row) => [row.time, values(row)]), ceiling?.(rows.at(-1)));
      }
    } catch {
      // the frame of the page says when the daemon is away
    }
    if (!closed) timer = setTimeout(poll, 2000);
  }

  for (const [each] of charts) each.show([]);
  poll();
  const off = session.on((kind) => {
    if (kind === "back") rows = [];
  });
  return { close() {
    closed = true;
    clearTimeout(timer);
    off();
  } };
}
