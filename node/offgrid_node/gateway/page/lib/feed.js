// The one WebSocket of the page, GET /v1/feed: what happens and what changes. It comes back by itself, and goes on where
// it was. Events are told as GET /v1/events has them, but for their data, which is `data` whatever its case.

const HURRY_MS = 2_000, FIRST_WAIT_MS = 500, MOST_WAIT_MS = 15_000, SILENT_MS = 45_000;

const listeners = { event: new Set(), sync: new Set(), change: new Set(), state: new Set() };
let socket = null, number = null, tries = 0, triedAt = 0, timer = 0, watchdog = 0;
export let state = { name: "connecting", retryAt: 0 };

export function listen(kind, listener) {
  listeners[kind].add(listener);
  return () => listeners[kind].delete(listener);
}

const tell = (kind, what) => { for (const listener of [...listeners[kind]]) listener(what); };

function become(name, retryAt = 0) {
  if (state.name === name && state.retryAt === retryAt) return;
  state = { name, retryAt };
  tell("state", state);
}

export function connect() {
  clearTimeout(timer);
  triedAt = Date.now();
  if (socket) { socket.onclose = null; socket.close(); }
  const url = new URL("/v1/feed", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  if (number !== null) url.searchParams.set("after", number);
  const mine = socket = new WebSocket(url);
  mine.onmessage = ({ data }) => { guard(); take(JSON.parse(data)); };
  mine.onclose = () => { if (socket === mine) retry(); };
  guard();
}

function guard() {
  clearTimeout(watchdog);
  watchdog = setTimeout(() => socket?.close(), SILENT_MS);
}

function retry() {
  clearTimeout(watchdog);
  socket = null;
  const wait = Math.min(MOST_WAIT_MS, FIRST_WAIT_MS * 2 ** tries++) * (0.75 + Math.random() / 2);
  become("away", Date.now() + wait);
  timer = setTimeout(connect, wait);
}

function take(message) {
  if (message.number !== undefined && message.number !== null) number = message.number;
  if (message.type === "state.sync" || message.type === "state.resumed") {
    tries = 0;
    become("live");
    tell("sync", message);
  } else if (message.type === "event") {
    tell("event", { ...message, seq: message.number, type: message.name, timestamp_us: Date.parse(message.timestamp) * 1_000 });
  } else if (message.type === "change") {
    tell("change", message);
  }
}

export function pause() { // while nobody is signed in
  clearTimeout(timer);
  clearTimeout(watchdog);
  if (socket) { socket.onclose = null; socket.close(); socket = null; }
  become("signed-out");
}

// The node answers, or may do so again: no use in waiting on.
export function hurry() { if (!socket && state.name === "away" && Date.now() - triedAt > HURRY_MS) connect(); }
addEventListener("online", hurry);
document.addEventListener("visibilitychange", () => { if (!document.hidden) hurry(); });
