// The file that is on its way to the node: one at a time, whatever view is shown. What breaks off goes on where it was, and
// after a reload once the same file is chosen again; it is never held in memory, and of what the node has a part at most is
// sent twice.

import { call, listen, newId, post, query, Refused, refusedOf, seg, send } from "./node.js";
import { t } from "./reader.js";

const TRIES_MAX = 8, WAIT_MS = 500, WAIT_MAX_MS = 15_000; // of tries that brought nothing; between two
const PART_BYTES = 2_097_152; // where a connection ends that had been used before, Chromium sends all of a request again, and tells nobody
const COMMIT_MS = 600_000, ONE_MILLI = 1_000; // the weight of one host: otherwise one copy is never durable
const MENDS = [0, 408, 502, 503, 504]; // statuses after which it may go on by itself; 0: no answer
const BROKEN_OFF = "offgrid.upload"; // where the browser keeps for this tab what it was: {said, name, id, request_id}
const watchers = new Set();
// {file, copies, name, size, sent, from: {sent, at} when this part began, phase: "sending", "waiting", "ending", "done" or "failed",
// error, object_id}
export let upload = null;

export function onUpload(watcher) {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

function advance(change) {
  upload = change && { ...upload, ...change };
  for (const watcher of watchers) watcher();
}

export const uploading = () => ["sending", "waiting", "ending"].includes(upload?.phase);

// What broke off in this tab before the page was loaded anew; null where nothing did.
export function brokenOff() {
  try { return JSON.parse(sessionStorage.getItem(BROKEN_OFF)); } catch { return null; }
}

function keep(what) {
  try { what ? sessionStorage.setItem(BROKEN_OFF, JSON.stringify(what)) : sessionStorage.removeItem(BROKEN_OFF); } catch { /* for this visit alone */ }
}

// `copies`: so many, or 0: as the node's config says. Until it is an object, was refused, or is given up by `stop`.
export async function put(file, copies) {
  const said = `${file.name} ${file.size} ${file.lastModified} ${copies}`, before = brokenOff();
  const ids = before?.said === said ? before : { said, name: file.name, id: "", request_id: newId() };
  const stopped = new AbortController();
  upload = null;
  advance({ file, copies, name: file.name, size: file.size, sent: 0, phase: "sending", error: null, stopped });
  try {
    advance({ object_id: await bring(file, copies, ids, stopped.signal), phase: "done" });
    keep(null);
  } catch (error) {
    if (!stopped.signal.aborted) { advance({ phase: "failed", error }); return; }
    keep(null);
    advance(null);
    if (ids.id) await giveUp(ids.id);
  }
}

// It would go by itself a day later.
async function giveUp(id) {
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    try { await call("DELETE", `/v1/uploads/${seg(id)}`); return; } catch (error) { if (!MENDS.includes(error.code)) return; }
    await rest(waitOf(tries));
  }
}

const waitOf = (tries) => Math.min(WAIT_MAX_MS, WAIT_MS * 2 ** tries);

export const stop = () => upload.stopped.abort();

async function bring(file, copies, ids, signal) {
  let most = 0, tries = 0;
  for (;;) {
    try {
      signal.throwIfAborted();
      await file.slice(0, 1).arrayBuffer().catch(() => { throw new Error(t("upload.changed")); });
      let at = await where(file, copies, ids);
      signal.throwIfAborted();
      if (at > most) [most, tries] = [at, 0];
      if (!ids.id) return "";
      advance({ sent: at, from: { sent: at, at: Date.now() }, phase: "sending" });
      for (; at < file.size; at += PART_BYTES) await part(file.slice(at, at + PART_BYTES), `/v1/uploads/${seg(ids.id)}`, at, signal);
      advance({ sent: file.size, phase: "ending" });
      const made = await send("POST", query(`/v1/uploads/${seg(ids.id)}:commit`, { timeout_ms: COMMIT_MS }), JSON.stringify({ size_bytes: file.size }), "application/json");
      return (await made.json()).object.object_id;
    } catch (error) {
      const mends = MENDS.includes(error.code) || error.broke && error.code === 404; // the node was started anew
      if (signal.aborted || !mends || error.broke && ++tries > TRIES_MAX) throw error;
    }
    advance({ phase: "waiting" });
    await rest(waitOf(tries), signal);
  }
}

// How much of it the node has. A node that was started anew has nothing of what was under way; ids.id is "" where it had
// made an object of it before, and the answer was lost.
async function where(file, copies, ids) {
  try {
    if (ids.id) return (await call("PUT", `/v1/uploads/${seg(ids.id)}`)).offset;
  } catch (error) { if (error.code !== 404) throw error; }
  const again = ids.id;
  try {
    const { upload_id, offset } = await post("/v1/uploads", { name: file.name, size_bytes: file.size, copies, required_milli: copies === 1 ? ONE_MILLI : 0, request_id: ids.request_id });
    ids.id = again && offset === file.size && offset ? "" : upload_id;
    keep(ids);
    return offset;
  } catch (error) {
    if (!again) ids.request_id = newId(); // whoever opens what was begun has to have summed up all of it
    throw error;
  }
}

// `body` to the node, as it comes from the disk.
function part(body, path, at, signal) {
  return new Promise((done, failed) => {
    const call = new XMLHttpRequest();
    const broke = (why) => failed(Object.assign(why, { broke: true }));
    call.open("PUT", query(path, { offset: at }));
    call.upload.onprogress = ({ loaded }) => advance({ sent: at + loaded });
    call.onload = () => call.status < 300 ? done() : broke(refusedOf(call.status, call.responseText));
    call.onerror = call.onabort = () => broke(new Refused(0, "UNAVAILABLE", "away", []));
    signal.onabort = () => call.abort();
    call.send(body);
  });
}

// As long, or until the node is heard of again.
function rest(ms, signal) {
  return new Promise((done) => {
    const over = () => { clearTimeout(timer); still(); done(); };
    const timer = setTimeout(over, ms), still = listen("sync", over);
    signal?.addEventListener("abort", over);
  });
}

addEventListener("beforeunload", (event) => { if (uploading()) event.preventDefault(); });
