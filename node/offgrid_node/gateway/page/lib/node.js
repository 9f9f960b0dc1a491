// The node: asked by calls of its HTTP interface, and heard over one WebSocket. What it refuses is thrown as Refused, with
// its own words.

export class Refused extends Error {
  constructor(code, status, message, details) {
    super(message);
    Object.assign(this, { code, status, details });
  }
}

const TIMEOUT_MS = 30_000;
const whenSignedOut = new Set();

// `listener` is called whenever the node asks for a token; returns how to stop that.
export function onSignedOut(listener) {
  whenSignedOut.add(listener);
  return () => whenSignedOut.delete(listener);
}

export function query(path, fields = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") search.append(name, one);
    }
  }
  const text = search.toString();
  return text ? `${path}${path.includes("?") ? "&" : "?"}${text}` : path;
}

export const seg = encodeURIComponent; // a part of a path

async function ask(method, path, { body, headers = {}, signal } = {}) {
  if (method !== "GET" && feed.name === "away" && await moved()) throw new Refused(0, "UNAVAILABLE", "away", []);
  let answer;
  try {
    answer = await fetch(path, { method, body, headers, signal: signal ?? AbortSignal.timeout(TIMEOUT_MS), credentials: "same-origin" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, "UNAVAILABLE", error.name === "TimeoutError" ? "timeout" : "away", []);
  }
  if (answer.ok) return answer;
  throw refusedOf(answer.status, await answer.text(), answer.statusText);
}

// What an answer with such a status and body refuses.
export function refusedOf(code, text, otherwise = "") {
  let told = {};
  try { told = JSON.parse(text).error ?? {}; } catch { /* not from the node itself */ }
  return refused(code, told, text.slice(0, 500) || otherwise);
}

function refused(code, told, otherwise = "") {
  const why = new Refused(code, told.status ?? "", told.message ?? otherwise, told.details ?? []);
  if (code === 401) for (const listener of whenSignedOut) listener(why);
  return why;
}

export async function call(method, path, message) {
  const answer = await ask(method, path, message === undefined ? {} : {
    body: JSON.stringify(message), headers: { "Content-Type": "application/json" },
  });
  return answer.status === 204 ? null : answer.json();
}

export const get = (path, fields) => call("GET", query(path, fields));
export const post = (path, message = {}) => call("POST", path, message);

// Bytes, to the node or from it, that fit into memory.
export const send = (method, path, body, type) => ask(method, path, { body, headers: { "Content-Type": type }, signal: AbortSignal.timeout(3_600_000) });

// Each message of a stream of lines, until it ends or `signal` says so.
export async function* lines(path, signal) {
  const answer = await ask("GET", path, { headers: { Accept: "application/x-ndjson" }, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) {
      if (!part.trim()) continue;
      const message = JSON.parse(part);
      if (message.error && message.error.status) throw refused(message.error.code, message.error);
      yield message;
    }
  }
}

export const newId = () => [...crypto.getRandomValues(new Uint8Array(12))].map((n) => n.toString(16).padStart(2, "0")).join("");

export function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}

export function base64Of(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

export const base64OfText = (text) => base64Of(new TextEncoder().encode(text));
export const textOf = (base64) => new TextDecoder().decode(bytesOf(base64));

// Lets the browser save bytes as a file.
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  handOver(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// Lets the browser bring an object to the disk, under the name that the node gives it: it streams, and shows how far it is.
// Whether it can be had is asked first.
export async function bringObject(id) {
  const path = `/v1/objects/${seg(id)}:bytes`;
  try { await (await ask("GET", path, { headers: { Range: "bytes=0-0" } })).arrayBuffer(); } catch (error) { if (error.code !== 416) throw error; } // an empty one
  handOver(path, "");
}

function handOver(href, download) {
  Object.assign(document.createElement("a"), { href, download }).click();
}

// ---- signing in, which the browser keeps in a cookie that no script can read

const SIGNED_IN = "offgrid.signed-in";

export async function signIn(said) {
  await post("/v1/login", said);
  try { localStorage.setItem(SIGNED_IN, ""); } catch { /* then it is not offered to end it */ }
}

export async function signOut() {
  await post("/v1/logout");
  localStorage.removeItem(SIGNED_IN);
}

export function isSignedIn() {
  try { return localStorage.getItem(SIGNED_IN) !== null; } catch { return false; }
}

// ---- whose page this is: nothing of one node is shown as another's, or sent to it

const NODE = "offgrid.node", MOVED = "offgrid.moved";
let met = "", tab = null; // tab: what the browser keeps for this one
try { tab = sessionStorage; } catch { /* nothing */ }

// Whether another node has come up at this address. Then what was typed for the one before goes, and the page begins anew.
async function moved(id) {
  const now = id ?? (await get("/v1/status")).node_id;
  met ||= tab?.getItem(NODE) ?? now;
  if (met !== now) {
    tab?.clear();
    tab?.setItem(MOVED, "");
    location.reload();
  }
  tab?.setItem(NODE, now);
  return met !== now;
}

// Whether the page has just begun anew for another node; said once.
export function hasMoved() {
  const said = tab?.getItem(MOVED) === "";
  tab?.removeItem(MOVED);
  return said;
}

// ---- the feed, GET /v1/feed: what happens and what changes. It comes back by itself, and goes on where it was. Events are
// told as GET /v1/events has them, but for their data, which is `data` whatever its case.

const HURRY_MS = 2_000, FIRST_WAIT_MS = 500, MOST_WAIT_MS = 15_000, SILENT_MS = 4_000, ANSWER_MS = 6_000;

const listeners = { event: new Set(), sync: new Set(), change: new Set(), state: new Set() };
let socket = null, cursor = null, tries = 0, triedAt = 0, timer = 0, watchdog = 0, turn = Promise.resolve();
export let feed = { name: "connecting", retryAt: 0 };

export function listen(kind, listener) {
  listeners[kind].add(listener);
  return () => listeners[kind].delete(listener);
}

export const report = (error) => setTimeout(() => { throw error; }); // for the browser's console

function tell(kind, what) { // one that fails keeps nothing from the others
  for (const listener of [...listeners[kind]]) try { listener(what); } catch (error) { report(error); }
}

function become(name, retryAt = 0) {
  if (feed.name === name && feed.retryAt === retryAt) return;
  feed = { name, retryAt };
  tell("state", feed);
}

export function connect() {
  clearTimeout(timer);
  triedAt = Date.now();
  if (socket) { socket.onclose = null; socket.close(); }
  const url = new URL("/v1/feed", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  if (cursor) url.searchParams.set("after", cursor);
  const mine = socket = new WebSocket(url);
  mine.onmessage = ({ data }) => { guard(); turn = turn.then(() => socket === mine ? take(JSON.parse(data)) : null).catch(report); };
  mine.onclose = () => { if (socket === mine) retry(); };
  guard();
}

// A cable that was pulled closes nothing: whether the node is there is asked where the feed is silent.
function guard() {
  clearTimeout(watchdog);
  watchdog = setTimeout(knock, SILENT_MS);
}

async function knock() {
  const mine = socket;
  try { await ask("GET", "/v1/about", { signal: AbortSignal.timeout(ANSWER_MS) }); } catch { if (mine && socket === mine) { mine.close(); retry(); } return; }
  if (socket === mine) guard();
}

function retry() {
  clearTimeout(watchdog);
  socket = null;
  const wait = Math.min(MOST_WAIT_MS, FIRST_WAIT_MS * 2 ** tries++) * (0.75 + Math.random() / 2);
  become("away", Date.now() + wait);
  timer = setTimeout(() => { connect(); moved().catch(() => {}); }, wait); // a browser does not tell that a feed was refused with 401
}

async function take(message) {
  if (message.type === "state.sync" || message.type === "state.resumed") {
    try { if (await moved(message.status?.node_id)) return; } catch { socket?.close(); return; }
  }
  cursor = message.cursor ?? cursor;
  if (message.type === "state.sync" || message.type === "state.resumed") {
    tries = 0;
    become("live");
    tell("sync", message);
  } else if (message.type === "event") {
    tell("event", { ...message, seq: message.number, type: message.name, timestamp_us: Date.parse(message.timestamp) * 1_000 });
  } else if (message.type === "change") {
    tell("change", message);
  } else if (message.type === "error") {
    refused(message.error.code, message.error);
  }
}

export function pause() { // while nobody is signed in
  clearTimeout(timer);
  clearTimeout(watchdog);
  if (socket) { socket.onclose = null; socket.close(); socket = null; }
  become("signed-out");
}

// The node answers, or may do so again: no use in waiting on.
export function hurry() { if (!socket && feed.name === "away" && Date.now() - triedAt > HURRY_MS) connect(); }
addEventListener("online", hurry);
addEventListener("offline", () => { if (feed.name === "live") knock(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) hurry(); });
