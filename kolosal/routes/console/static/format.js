// Numbers and times as people read them. Knows no page.

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (n >= 1024 && step < units.length - 1) {
    n /= 1024;
    step += 1;
  }
  return `${step && n < 100 ? n.toFixed(1) : Math.round(n)} ${units[step]}`;
}

export function count(n) {
  return n === null || n === undefined ? "–" : n.toLocaleString("en-US");
}

export function rate(n) {
  if (n === null || n === undefined) return "–";
  return n >= 100 ? String(Math.round(n)) : n.toFixed(1);
}

export function milliseconds(n) {
  if (n === null || n === undefined) return "–";
  if (n < 1000) return `${Math.round(n)} ms`;
  return n < 60000 ? `${(n / 1000).toFixed(n < 10000 ? 2 : 1)} s` : duration(n / 1000);
}

/** 4:05, 1:02:09 */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const two = (n) => String(n).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}:${two(whole % 60)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

export function clock(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

export function dateTime(text) {
  return text ? new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }) : "–";
}

export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** The last part of a path of any system. */
export function fileName(path) {
  return (path ?? "").split(/[\\/]/).pop();
}
