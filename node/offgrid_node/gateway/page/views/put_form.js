// The form by which a file becomes an object, and how far it is.

import { html, useEffect, useReducer, useRef, useState } from "../vendor/htm-preact.js";
import { useLive } from "../lib/live.js";
import { brokenOff, onUpload, put, stop, upload, uploading } from "../lib/upload.js";
import { Mark, Problem, say } from "../lib/parts.js";
import { bytes, percent, rate, span, t } from "../lib/reader.js";

const RATE_AFTER_MS = 2_000, COPIES_MAX = 5;

function useUpload() {
  const [, changed] = useReducer((count) => count + 1, 0);
  useEffect(() => onUpload(changed), []);
  return upload;
}

// How far it is, for who looks at something else.
export function UploadMark() {
  const now = useUpload();
  return html`<${Mark} text=${uploading() && percent(share(now))} />`;
}

const share = ({ sent, size }) => size ? sent / size : 1;

export function PutForm({ reload }) {
  const field = useRef(null), now = useUpload(), busy = uploading(), before = !now && brokenOff(), phase = useRef(now?.phase);
  useEffect(() => {
    if (phase.current === now?.phase) return;
    phase.current = now?.phase;
    if (now?.phase === "done") { field.current.value = ""; reload(); }
    if (["done", "waiting"].includes(now?.phase)) say(t(`upload.${now.phase}`, { name: now.name }));
  }, [now?.phase]);
  const peers = useLive("/v1/peers?page_size=1000", { on: ["MEMBER_", "PEER_"], every: 60_000 }).data?.peers;
  const hosts = peers?.filter((peer) => !peer.self && !peer.member.removed && peer.roles_in_force.includes("ROLE_HOST")).length ?? COPIES_MAX;
  const [chosen, choose] = useState(null), copies = chosen ?? (hosts === 1 ? 1 : 0);
  const submit = (event) => { event.preventDefault(); put(field.current.files[0], copies); };
  return html`<form class="panel" onSubmit=${submit} aria-label=${t("upload.title")}>
    <div class="row"><label for="upload-file">${t("upload.file")}</label><input id="upload-file" type="file" ref=${field} required disabled=${busy} />
      <label class="inline">${t("upload.copies")} <select value=${copies} disabled=${busy} onChange=${(event) => choose(Number(event.target.value))}><option value="0">${t("upload.usual")}</option>
        ${Array.from({ length: Math.max(1, Math.min(COPIES_MAX, hosts)) }, (_, at) => html`<option value=${at + 1}>${t("upload.copies_of", { n: at + 1 })}</option>`)}</select></label>
      <button type="submit" disabled=${busy}>${t("upload.go")}</button>
      ${now?.phase === "done" && html`<span>${now.object_id ? html`<a href=${`#/storage/${encodeURIComponent(now.object_id)}`}>${t("upload.done", { name: now.name })}</a>` : t("upload.done", { name: now.name })}</span>`}</div>
    ${hosts < 2 && html`<p class="hint">${t(hosts ? "upload.few" : "upload.nobody")}</p>`}
    ${before && html`<p class="hint">${t("upload.broken_off", { name: before.name })}</p>`}
    ${busy && html`<div class="row upload"><progress max="1" value=${share(now)} aria-label=${now.name}></progress>
      <span><strong>${now.name}</strong> ${farness(now)}</span>${now.phase !== "ending" && html`<button type="button" class="plain small" onClick=${stop}>${t("cancel")}</button>`}</div>`}
    ${now?.phase === "failed" && html`<${Problem} error=${now.error} retry=${() => put(now.file, now.copies)} again=${t("upload.go_on")} />`}</form>`;
}

function farness(now) {
  if (now.phase !== "sending") return t(`upload.${now.phase}`, { name: now.name });
  const took_ms = Date.now() - (now.from?.at ?? Date.now()), perSecond = took_ms && (now.sent - now.from.sent) / took_ms * 1e3;
  const left = perSecond > 0 && took_ms > RATE_AFTER_MS ? [rate(perSecond), t("upload.left", { time: span((now.size - now.sent) / perSecond * 1e3) })] : [];
  return [t("upload.of", { sent: bytes(now.sent), size: bytes(now.size), share: percent(share(now)) }), ...left].join(" · ");
}
