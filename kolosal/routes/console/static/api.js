// The daemon's public HTTP API, as any client uses it: calls, streams of events, and the key.

const KEY = "kolosal-key"; // in this tab only; /docs has the same
export const BASE = new URL(".", location.href.split("#")[0]).href;

export class ApiError extends Error {
  /** `status` 0: nothing answered. */
  constructor(status, message, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function apiKey() {
  return sessionStorage.getItem(KEY);
}

export function setApiKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** What the daemon answers. Throws ApiError with its own words. `signal` gives it up. */
export async function call(method, path, body, signal = AbortSignal.timeout(30000)) {
  return (await request(method, path, body, signal)).json();
}

export const get = (path) => call("GET", path);

/** As `call`, for what takes as long as it takes: loads, unloads. */
export const callSlowly = (method, path, body) => call(method, path, body, null);

/**
 * Server-sent events, each as `onEvent(kind, data, id)`; ends with the answer or when `signal` is given up.
 * Not an EventSource, because that can send no key.
 */
export async function stream(method, path, body, signal, onEvent) {
  const answer = await request(method, path, body, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const frames = (rest + value).split("\n\n");
      rest = frames.pop();
      for (const frame of frames) emit(frame, onEvent);
    }
  } catch (error) {
    if (signal.aborted) return;
    throw new ApiError(0, `The connection broke: ${error.message}`);
  }
}

function emit(frame, onEvent) {
  const fields = {};
  for (const line of frame.split("\n")) {
    const at = line.indexOf(":");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 1).replace(/^ /, "");
  }
  if (fields.data === undefined) return;
  onEvent(fields.event ?? "message", fields.data === "[DONE]" ? null : JSON.parse(fields.data), fields.id);
}

async function request(method, path, body, signal) {
  const headers = {};
  if (apiKey()) headers.authorization = `Bearer ${apiKey()}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(BASE + path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (signal?.aborted && error.name === "AbortError") throw error;
    throw new ApiError(0, "The daemon does not answer");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  const error = new ApiError(answer.status, told?.error?.message ?? `The daemon answered ${answer.status}`, told?.error?.code);
  if (answer.status === 401) dispatchEvent(new CustomEvent("key-refused", { detail: error }));
  throw error;
}

export const enginePath = (id) => `engines/${encodeURIComponent(id)}`;
