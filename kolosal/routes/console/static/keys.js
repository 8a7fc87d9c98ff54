// Keys: who may use the daemon.

import { call, get, setApiKey } from "./api.js";
import { button, confirmed, copyText, empty, field, h, toast } from "./dom.js";
import { dateTime } from "./format.js";

export function view(root) {
  const made = h("div", { className: "made", role: "status" });
  const body = h("tbody");
  const table = h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Keys" }, h("table", {}, h("thead", {}, h("tr", {}, ...["Name", "Id", "May", "Made", ""].map((text) => h("th", { scope: "col" }, text || h("span", { className: "hidden" }, "Actions"))))), body));
  const none = empty("No key is needed yet", h("p", {}, "Whoever can reach this daemon may use it. With the first key, every request needs one, this page too: so the first one must have the scope admin."));
  const name = h("input", { required: true, maxLength: 64, pattern: "[A-Za-z0-9._@\\-]+", placeholder: "laptop", autocomplete: "off", spellcheck: false });
  const inference = h("input", { type: "checkbox", checked: true });
  const admin = h("input", { type: "checkbox" });
  const submit = h("button", { className: "primary" }, "Make a key");
  const form = h("form", { className: "card", onsubmit: create }, h("h2", {}, "A new key"), field("Name", name, "For whom or what it is: letters, digits and . _ @ -"),
    h("label", { className: "check" }, inference, " inference: use the engines"), h("label", { className: "check" }, admin, " admin: change engines and keys, see activity and logs"), h("div", { className: "row end" }, submit));
  root.append(made, none, table, form);
  let needed = false;

  async function load() {
    try {
      const found = await get("v1/keys");
      needed = found.needed;
      if (!needed) admin.checked = true;
      none.hidden = needed;
      table.hidden = found.keys.length === 0;
      body.replaceChildren(...found.keys.map(row));
    } catch (error) {
      if (error.status && error.status !== 401) toast(error.message, "bad");
    }
  }

  function row(key) {
    const last = key.from_configuration ? h("span", { className: "soft" }, "in the configuration") : button("Revoke …", () => revoke(key), "quiet", { "aria-label": `Revoke ${key.name}` });
    return h("tr", {}, h("th", { scope: "row" }, key.name), h("td", {}, h("code", {}, key.id)), h("td", {}, key.scopes.join(", ")), h("td", {}, dateTime(key.created)), h("td", {}, last));
  }

  async function create(event) {
    event.preventDefault();
    const scopes = [...(inference.checked ? ["inference"] : []), ...(admin.checked ? ["admin"] : [])];
    submit.disabled = true;
    try {
      const first = !needed;
      const key = await call("POST", "v1/keys", { name: name.value, scopes });
      if (first) setApiKey(key.key); // or this page would be the first that is kept out
      const text = h("code", {}, key.key);
      made.replaceChildren(h("div", { className: "notice good" }, h("p", {}, h("b", {}, `${key.name}: `), "keep this key, it cannot be shown again."), h("div", { className: "row" }, text, button("Copy", () => copyText(key.key, text))),
        first ? h("p", {}, "Every request needs a key from now on. This tab uses the new one.") : null));
      name.value = "";
      inference.checked = true;
      admin.checked = false;
      await load();
    } catch (error) {
      toast(error.message, "bad");
    }
    submit.disabled = false;
  }

  async function revoke(key) {
    if (!(await confirmed(`Revoke ${key.name}?`, "The next request with it is refused. This cannot be undone.", "Revoke"))) return;
    try {
      await call("DELETE", `v1/keys/${encodeURIComponent(key.id)}`);
      toast(`${key.name} is revoked`);
    } catch (error) {
      toast(error.message, "bad");
    }
    load();
  }

  load();
}
