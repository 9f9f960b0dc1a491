// Objects with what may be lost of them, what is on its way to hosts, quorums, and what may be kept.

import { html, useEffect, useMemo, useRef, useState } from "../vendor/htm-preact.js";
import { PutForm } from "./put_form.js";
import { useLive, usePages, useSettled } from "../lib/live.js";
import { bringObject, call, post, query, seg } from "../lib/node.js";
import { Act, Badge, Bar, Confirm, Empty, Facts, Id, Loaded, Problem, Said, say, Section, Table, Tabs, useNames, When } from "../lib/parts.js";
import { bytes, moment, num, percent, plain, t, weight } from "../lib/reader.js";

const OBJECT_TONES = { ACCEPTED: "warn", DURABLE: "good", LOCAL: "warn", DAMAGED: "bad" };
const OUTBOX_TONES = { PENDING: "warn", DELIVERING: "busy", COMPLETED: "good", CANCELLED: "quiet" };

export function StorageView({ tab, part }) {
  const chosen = part && !tab ? part : "";
  const items = [["#/storage", t("storage.objects")], ["#/storage/outbox", t("storage.outbox")], ["#/storage/quorums", t("storage.quorums")], ["#/storage/retention", t("storage.retention")], ["#/storage/backups", t("storage.backups")]];
  const View = { outbox: Outbox, quorums: Quorums, retention: Retention, backups: Backups }[tab] ?? Objects;
  return html`<h1 tabindex="-1">${t("nav.storage")}</h1><${Tabs} label=${t("nav.storage")} here=${tab && tab !== "risk" ? `#/storage/${tab}` : "#/storage"} items=${items} />
    ${chosen ? html`<${ObjectDetail} id=${chosen} />` : html`<${View} riskFirst=${tab === "risk"} />`}`;
}

// `acks` say who holds which shards (none named: a whole copy); `needed` of them give a coded object back, 0: copies.
// {hosts: that hold something and are there, any: so many of them may be lost, now: it can be had now}
export function survival(acks, needed) {
  const there = acks.filter((ack) => !ack.away);
  if (!needed) return { hosts: there.length, any: Math.max(0, there.length - 1), now: there.length > 0 };
  const left = (some) => new Set(some.flatMap((ack) => ack.shards)).size;
  const now = left(there) >= needed;
  const mostFirst = [...there].sort((a, b) => b.shards.length - a.shards.length); // those that hold the most go first
  let any = 0;
  while (any < there.length && left(mostFirst.slice(any + 1)) >= needed) any += 1;
  return { hosts: there.length, any: now ? any : 0, now };
}

function Survival({ object }) {
  const found = survival(object.acks, object.shards_needed);
  if (found.any > 0) return html`<${Badge} tone="good">${t("survival.any", { n: found.any, hosts: found.hosts })}<//>`;
  const tone = !found.now && !object.local ? "bad" : object.risk === "OBJECT_RISK_AT_RISK" ? "warn" : "quiet";
  return html`<${Badge} tone=${tone}>${t(`survival.${object.local ? object.acks.length ? "local" : "alone" : found.now ? "none" : "lost"}`)}<//>`;
}

// What the node judges first, as `offgrid status` counts it.
const safety = (object) => ({ OBJECT_RISK_GONE: -2, OBJECT_RISK_AT_RISK: -1 })[object.risk] ?? survival(object.acks, object.shards_needed).any;

// All of them, to be sorted and searched here; where they are too many, those whose names begin as is typed.
function Objects({ riskFirst }) {
  const [typed, type] = useState(""), word = useSettled(typed.trim());
  const [cut, found] = useState(false);
  const live = useLive(query("/v1/objects", { name_prefix: cut ? word : "" }), { field: "objects", on: ["OBJECT_", "QUORUM_ACKED", "PEER_"], every: 60_000 });
  useEffect(() => { if (live.data?.next_page_token) found(true); }, [live.data]);
  const rows = useMemo(() => (live.data?.objects ?? []).filter((object) => (object.name || object.object_id).toLowerCase().includes(word.toLowerCase())), [live.data, word]);
  return html`<${PutForm} reload=${live.reload} /><${Section} title=${t("storage.objects")} hint=${t(cut ? "storage.objects_cut" : "storage.objects_hint")} actions=${html`
    <label class="inline">${t("events.find")} <input type="search" value=${typed} onInput=${(event) => type(event.target.value)} /></label>`}>
    <${Loaded} live=${live}>${() => html`
      ${live.data.damaged.length > 0 && html`<p class="problem">${t("storage.damaged", { n: live.data.damaged.length })}</p>`}
      <${Table} caption=${t("storage.objects")} rows=${rows} keyOf=${(object) => object.object_id}
        empty=${word ? html`<${Empty} text=${t("storage.none_so")} />` : html`<${Empty} text=${t("storage.empty")} command="offgrid put FILE" />`} columns=${[
          { head: t("storage.name"), by: (object) => object.name || object.object_id, cell: (object) => html`<a href=${`#/storage/${encodeURIComponent(object.object_id)}`}>${object.name || html`<code>${object.object_id.slice(0, 12)}…</code>`}</a>` },
          { head: t("storage.size"), num: true, by: (object) => object.size_bytes, cell: (object) => bytes(object.size_bytes) },
          { head: t("jobs.state"), bare: true, by: (object) => plain(object.state), cell: (object) => html`<${Badge} tone=${OBJECT_TONES[plain(object.state)]} title=${object.trouble}>${t(`object.${plain(object.state)}`)}<//>` },
          { head: t("storage.may_lose"), first: riskFirst && "up", by: safety, cell: (object) => html`<${Survival} object=${object} />` },
          { head: t("storage.coding"), wide: true, cell: (object) => object.shards_total ? t("storage.coded", { needed: object.shards_needed, total: object.shards_total }) : t("storage.copies", { n: object.acks.length }) },
          { head: t("jobs.made"), first: !riskFirst && "down", by: (object) => object.created_us, cell: (object) => html`<${When} us=${object.created_us} />` },
        ]} />`}<//>
  <//>`;
}

function ObjectDetail({ id }) {
  const live = useLive(`/v1/objects/${seg(id)}`, { on: ["OBJECT_", "QUORUM_ACKED", "PEER_"], every: 15_000 });
  const placed = useLive(`/v1/placement?object=${seg(id)}`, { on: ["PEER_", "QUORUM_ACKED"], every: 30_000 });
  const name = useNames(), [asking, ask] = useState(false), [gone, setGone] = useState(false);
  const object = live.data?.object;
  if (gone) return html`<p>${t("storage.deleted")} <a href="#/storage">${t("storage.objects")}</a></p>`;
  return html`<p class="crumb"><a href="#/storage">${t("storage.objects")}</a></p><${Loaded} live=${live}>${() => html`
    <${Section} title=${object.name || object.object_id.slice(0, 16)} actions=${html`
        <${Act} verb=${t("download")} work=${() => bringObject(object.object_id)} />
        <${Act} verb=${t("storage.audit")} work=${async () => { await post(`/v1/objects/${seg(object.object_id)}:audit`); live.reload(); say(t("storage.audited")); }} />
        <button type="button" class="danger" onClick=${() => ask(true)}>${t("storage.delete")}</button>`}>
      <${Facts} rows=${[
        [t("jobs.state"), html`<${Badge} tone=${OBJECT_TONES[plain(object.state)]}>${t(`object.${plain(object.state)}`)}<//> <${Said} text=${object.trouble} />`],
        [t("storage.may_lose"), html`<${Survival} object=${object} />`],
        [t("storage.size"), bytes(object.size_bytes)],
        [t("storage.acked"), `${weight(object.acked_milli)} / ${weight(object.required_milli)}`],
        object.shards_total > 0 && [t("storage.coding"), t("storage.coded", { needed: object.shards_needed, total: object.shards_total })],
        [t("jobs.made"), moment(object.created_us)],
        object.expires_us > 0 && [t("storage.expires"), moment(object.expires_us)],
        [t("storage.verified"), object.verified_us ? html`<${When} us=${object.verified_us} />` : "–"],
        [t("node.id"), html`<code class="wrap">${object.object_id}</code>`],
      ]} /><//>
    <${Section} title=${t("storage.hosts")}><${Table} caption=${t("storage.hosts")} rows=${object.acks} keyOf=${(ack) => ack.node_id}
      empty=${html`<${Empty} text=${t("storage.no_acks")} />`} columns=${[
        { head: t("jobs.host"), cell: (ack) => name(ack.node_id) },
        { head: t("mesh.life"), cell: (ack) => html`<${Badge} tone=${ack.away ? "bad" : "good"}>${t(ack.away ? "life.DEAD" : "life.ALIVE")}<//>` },
        { head: t("storage.shards"), cell: (ack) => ack.shards.length ? ack.shards.map((shard) => html`<code class="chip">${shard}</code>`) : t("storage.copy") },
        { head: t("mesh.weight"), num: true, wide: true, cell: (ack) => weight(ack.weight_milli) },
        { head: t("storage.verified"), cell: (ack) => html`<${When} us=${ack.verified_us || ack.acked_us} />` },
      ]} /><//>
    <${Section} title=${t("storage.placement")} hint=${t("storage.placement_hint")}><${Loaded} live=${placed}>${() => html`
      <${Table} caption=${t("storage.placement")} rows=${placed.data.hosts} keyOf=${(host) => host.node_id} columns=${[
        { head: t("jobs.host"), cell: (host) => host.name || name(host.node_id) },
        { head: t("why.verdict"), cell: (host) => html`<${Badge} tone=${["GETS", "HOLDS"].includes(plain(host.outcome)) ? "good" : "quiet"}>${t(`placement.${plain(host.outcome)}`)}<//>` },
        { head: t("why.reason"), cell: (host) => host.reason ? html`<${Said} text=${host.reason} />` : "–" },
        { head: t("storage.room"), num: true, wide: true, cell: (host) => host.room_bytes != null ? bytes(host.room_bytes) : "–" },
      ]} />`}<//><//>
    ${asking && html`<${Confirm} title=${t("storage.delete_title")} text=${t("storage.delete_text")} verb=${t("storage.delete")} onClose=${() => ask(false)}
      onYes=${async () => { await call("DELETE", `/v1/objects/${seg(object.object_id)}`); setGone(true); }} />`}`}<//>`;
}

function Outbox() {
  const [all, show] = useState(false);
  const live = usePages(`/v1/outbox${all ? "" : "?open_only=true"}`, { field: "entries", on: ["OBJECT_", "QUORUM_ACKED", "PEER_"], every: 15_000 });
  return html`<${Section} title=${t("storage.outbox")} hint=${t("storage.outbox_hint")} actions=${html`<label class="inline"><input type="checkbox" checked=${all} onChange=${(event) => show(event.target.checked)} /> ${t("storage.outbox_all")}</label>`}>
    <${Loaded} live=${live}>${() => html`<${Table} caption=${t("storage.outbox")} rows=${live.rows} keyOf=${(entry) => entry.id} more=${live.more} busy=${live.busy}
      empty=${html`<${Empty} text=${t("storage.outbox_empty")} command="offgrid outbox" />`} columns=${[
        { head: t("storage.entry"), cell: (entry) => html`${num(entry.id)} <code>${entry.key}</code>` },
        { head: t("jobs.state"), cell: (entry) => html`<${Badge} tone=${OUTBOX_TONES[plain(entry.status)]}>${t(`outbox.${plain(entry.status)}`)}<//>` },
        { head: t("storage.acked"), num: true, cell: (entry) => `${weight(entry.acked_milli)} / ${weight(entry.required_milli)}` },
        { head: t("storage.trouble"), cell: (entry) => entry.trouble ? html`<${Said} text=${entry.trouble} />` : "–" },
        { head: t("jobs.made"), wide: true, cell: (entry) => html`<${When} us=${entry.created_us} />` },
        { head: t("mesh.actions"), cell: (entry) => ["PENDING", "DELIVERING"].includes(plain(entry.status)) ? html`<${Act} verb=${t("storage.give_up")} work=${async () => { await post(`/v1/outbox/${entry.id}:cancel`); live.reload(); }} />` : "" },
      ]} />`}<//>
  <//>`;
}

function Quorums() {
  const live = usePages("/v1/quorums", { field: "quorums", on: ["QUORUM_"], every: 30_000 });
  const name = useNames();
  return html`<${Section} title=${t("storage.quorums")} hint=${t("storage.quorums_hint")}><${Loaded} live=${live}>${() => html`
    <${Table} caption=${t("storage.quorums")} rows=${live.rows} keyOf=${(quorum) => `${quorum.owner}/${quorum.quorum_id}`} more=${live.more} busy=${live.busy}
      empty=${html`<${Empty} text=${t("storage.quorums_empty")} command="offgrid quorum create --id test123 --required 2.0" />`} columns=${[
        { head: t("storage.quorum"), cell: (quorum) => html`<code class="wrap">${quorum.quorum_id}</code>` },
        { head: t("jobs.state"), cell: (quorum) => html`<${Badge} tone=${quorum.reached ? "good" : "warn"}>${t(quorum.reached ? "quorum.reached" : "quorum.open")}<//>` },
        { head: t("storage.acked"), num: true, cell: (quorum) => `${weight(quorum.acked_milli)} / ${weight(quorum.required_milli)}` },
        { head: t("quorum.by"), cell: (quorum) => quorum.acks.map((ack) => name(ack.node_id)).join(", ") || "–" },
        { head: t("storage.owner"), wide: true, cell: (quorum) => name(quorum.owner) },
      ]} />`}<//>
  <//>`;
}

function Retention() {
  const live = useLive("/v1/retention", { every: 15_000 });
  return html`<${Section} title=${t("storage.retention")} hint=${t("retention.hint")}><${Loaded} live=${live}>${() => html`
    ${live.data.held && html`<p class="problem">${t("needs.held")} <${Said} text=${live.data.held} /></p>`}
    <${Table} caption=${t("storage.retention")} rows=${live.data.shares} keyOf=${(share) => share.name} columns=${[
      { head: t("retention.share"), cell: (share) => t(`retention.${share.name}`) },
      { head: t("retention.percent"), num: true, cell: (share) => percent(share.percent / 100) },
      { head: t("retention.used"), num: true, cell: (share) => `${bytes(share.used_bytes)} / ${bytes(share.budget_bytes)}` },
      { head: t("retention.full"), cell: (share) => html`<${Bar} value=${share.used_bytes} max=${share.budget_bytes} tone=${share.used_bytes > share.budget_bytes * 0.9 ? "warn" : ""} label=${percent(share.used_bytes / (share.budget_bytes || 1))} />` },
    ]} />
    <${Facts} rows=${[
      [t("retention.budget"), bytes(live.data.budget_bytes)],
      live.data.dropped && [t("retention.gone"), t("retention.gone_text", { events: live.data.dropped.events, sessions: live.data.dropped.session_events, size: bytes(live.data.dropped.bytes) })],
      live.data.cleanup_days > 0 && [t("retention.age"), t("retention.days", { n: live.data.cleanup_days })],
    ]} />`}<//><//>`;
}

function Backups() {
  const live = useLive("/v1/backups", { every: 60_000 });
  return html`<${Section} title=${t("storage.backups")} hint=${t("backups.hint")}><${Loaded} live=${live}>${() => html`
    <${Table} caption=${t("storage.backups")} rows=${live.data.backups} keyOf=${(backup) => backup.path} empty=${html`<${Empty} text=${t("backups.empty")} command="offgrid state backup" />`} columns=${[
      { head: t("backups.file"), cell: (backup) => html`<code class="wrap">${backup.path.split(/[\\/]/).pop()}</code>` },
      { head: t("jobs.made"), first: "down", by: (backup) => backup.made_us, cell: (backup) => html`<${When} us=${backup.made_us} />` },
      { head: t("storage.size"), num: true, cell: (backup) => bytes(backup.bytes) },
      { head: t("backups.upto"), num: true, wide: true, cell: (backup) => num(backup.journal_seq) },
      { head: t("jobs.state"), bare: true, cell: (backup) => html`<${Badge} tone=${backup.damaged_total ? "bad" : "good"}>${t(backup.damaged_total ? "backups.damaged" : "backups.whole")}<//> ${backup.sealed && html`<${Badge}>${t("backups.sealed")}<//>`}` },
    ]} />
    <${Facts} rows=${[
      [t("backups.folder"), html`<code class="wrap">${live.data.folder}</code>`],
      [t("backups.store"), html`${bytes(live.data.store_used_bytes)} / ${bytes(live.data.store_limit_bytes)} <${Bar} value=${live.data.store_used_bytes} max=${live.data.store_limit_bytes} label=${t("backups.store")} />`],
    ]} />`}<//><//>`;
}
