// Conversations, kept in this browser: bounded, the oldest go first. Knows no page.

const KEY = "kolosal-chats";
const MAX_CHATS = 50;
const MAX_CHARS = 2_000_000; // browsers give some 5 MB to an address

export function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(kept) ? kept.filter((each) => each?.id && Array.isArray(each.turns)) : [];
  } catch {
    return [];
  }
}

/** Keeps a conversation as the newest one. */
export function keep(chat) {
  write([chat, ...load().filter((each) => each.id !== chat.id)]);
}

export function forget(id) {
  write(load().filter((each) => each.id !== id));
}

function write(chats) {
  const kept = chats.slice(0, MAX_CHATS);
  for (;;) {
    const text = JSON.stringify(kept);
    if (text.length <= MAX_CHARS || kept.length <= 1) {
      try {
        localStorage.setItem(KEY, text);
        return;
      } catch {
        if (kept.length <= 1) return; // the browser keeps nothing: the conversation lasts as long as the page
      }
    }
    kept.pop();
  }
}

export function title(chat) {
  const first = chat.turns.find((turn) => turn.role === "user")?.content ?? "";
  return first.slice(0, 60).replace(/\s+/g, " ") || "New conversation";
}

export function asMarkdown(chat) {
  const parts = [`# ${title(chat)}`];
  if (chat.system) parts.push(`**System**\n\n${chat.system}`);
  for (const turn of chat.turns) {
    if (turn.role === "user") parts.push(`**You**\n\n${turn.content}`);
    else for (const answer of turn.answers) parts.push(`**${answer.model}**\n\n${answer.content}`);
  }
  return `${parts.join("\n\n")}\n`;
}
