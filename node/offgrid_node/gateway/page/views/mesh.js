// Members, the roads to them and the links that carry those, as a map and as tables; inviting and removing.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { useLive, useNarrow } from "../lib/live.js";
import { call, post, query, seg, send } from "../lib/node.js";
import { Act, Badge, Bar, Confirm, Copy, Empty, Facts, Id, Loaded, Problem, say, Section, Table, When } from "../lib/parts.js";
import { num, percent, plain, rate, span, t, weight } from "../lib/reader.js";

const DRAWN_MAX = 60, DRAWN_NARROW_MAX = 24, RING_MAX = 16, RADIUS = 140, RING = 95, LABELLED_MAX = 20;
const PEER_DEAD = 7; // the type of that event
const LIFE_TONES = { ALIVE: "good", SUSPECT: "warn", DEAD: "bad", UNSPECIFIED: "quiet" };
const byId = (a, b) => a.member.node_id < b.member.node_id ? -1 : 1;
const lifeOf = (peer) => plain(peer.liveness);
const inUse = (peerRoads) => peerRoads?.roads.find((road) => road.state === "ROAD_STATE_IN_USE") ?? peerRoads?.roads[0];

export function Mesh() {
  const peers = useLive("/v1/peers?page_size=1000", { on: ["MEMBER_", "PEER_"], every: 15_000, parts: ["peers"] });
  const roads = useLive("/v1/roads", { on: ["PEER_"], every: 5_000 });
  const links = useLive("/v1/links", { parts: ["links"], every: 30_000 });
  const roadsOf = new Map((roads.data?.peers ?? []).map((one) => [one.node_id, one]));
  return html`<h1 tabindex="-1">${t("nav.mesh")}</h1>
    <${Loaded} live=${peers}>${() => {
      const rows = peers.data.peers.filter((peer) => !peer.member.removed);
      return html`
        <${Section} title=${t("mesh.map")} hint=${t("mesh.map_hint")}><${MeshMap} peers=${rows} roads=${roadsOf} /><//>
        <${Members} rows=${rows} roads=${roadsOf} reload=${peers.reload} />`;
    }}<//>
    <${Problem} error=${roads.error} />
    <${Invite} />
    <${Section} title=${t("links.title")} hint=${t("links.hint")}><${Loaded} live=${links}>${() => html`<${Links} links=${links.data.links} />`}<//><//>`;
}

function Members({ rows, roads, reload }) {
  const [leaving, remove] = useState(null);
  const road = (peer) => inUse(roads.get(peer.member.node_id)), figures = (peer) => lifeOf(peer) === "DEAD" ? null : road(peer);
  return html`<${Section} title=${t("mesh.members")}>
    <${Table} caption=${t("mesh.members")} rows=${rows} keyOf=${(peer) => peer.member.node_id}
      empty=${html`<${Empty} text=${t("mesh.empty")} command="offgrid mesh invite" />`} columns=${[
        { head: t("node.name"), first: "up", by: (peer) => peer.member.name, cell: (peer) => html`<strong>${peer.member.name}</strong>${peer.self && html` <span class="quiet">${t("mesh.self")}</span>`}` },
        { head: t("mesh.life"), bare: true, by: lifeOf, cell: (peer) => html`<${Badge} tone=${LIFE_TONES[lifeOf(peer)]}>${t(`life.${lifeOf(peer)}`)}<//>${lifeOf(peer) === "DEAD" && html` <${Since} id=${peer.member.node_id} />`}` },
        { head: t("node.roles"), bare: true, cell: (peer) => peer.roles_in_force.map((role) => t(`role.${plain(role)}`)).join(", ") },
        { head: t("mesh.road"), cell: (peer) => road(peer) ? html`<code>${road(peer).via}</code> ${lifeOf(peer) !== "DEAD" && html`<span class="quiet">${t(`road.${plain(road(peer).state)}`)}</span>`}` : "–" },
        { head: t("mesh.rtt"), num: true, by: (peer) => figures(peer)?.rtt_ms ?? Infinity, cell: (peer) => figures(peer)?.rtt_ms != null ? `${num(road(peer).rtt_ms, 1)} ms` : "–" },
        { head: t("mesh.rate"), num: true, wide: true, cell: (peer) => figures(peer)?.bytes_per_s ? rate(road(peer).bytes_per_s) : "–" },
        { head: t("mesh.loss"), num: true, wide: true, cell: (peer) => figures(peer)?.loss_milli != null ? percent(road(peer).loss_milli / 1e3, 1) : "–" },
        { head: t("mesh.weight"), num: true, wide: true, cell: (peer) => weight(peer.member.weight_milli) },
        { head: t("node.id"), wide: true, cell: (peer) => html`<${Id} id=${peer.member.node_id} />` },
        { head: t("mesh.actions"), bare: true, cell: (peer) => peer.self ? "" : html`<span class="row"><${Ping} member=${peer.member} /><button type="button" class="plain small" aria-label=${t("mesh.remove_who", { name: peer.member.name })} onClick=${() => remove(peer.member)}>${t("mesh.remove")}</button></span>` },
      ]} />
    ${leaving && html`<${Confirm} title=${t("mesh.remove_who", { name: leaving.name })} text=${t("mesh.remove_text", { name: leaving.name })} verb=${t("mesh.remove")}
      onClose=${() => remove(null)} onYes=${async () => { await call("DELETE", `/v1/members/${seg(leaving.node_id)}`); reload(); }} />`}
  <//>`;
}

// When a member was last seen to fall silent, by this node's journal.
function Since({ id }) {
  const { data } = useLive(query("/v1/events", { subject: id, etypes: PEER_DEAD, newest_first: true, page_size: 1 }), { on: ["PEER_DEAD"] });
  return data?.events.length > 0 && html`<${When} us=${data.events[0].timestamp_us} />`;
}

// Measures how long a member takes to answer, on the road in use.
function Ping({ member }) {
  const [state, set] = useState({ text: t("mesh.ping"), busy: false });
  const go = async () => {
    set({ text: "…", busy: true });
    try {
      const { rtt_ms } = await post(`/v1/peers/${seg(member.node_id)}:ping`);
      set({ text: `${num(rtt_ms, 1)} ms`, busy: false });
      say(t("mesh.ping_said", { name: member.name, ms: num(rtt_ms, 1) }));
    } catch { set({ text: t("mesh.ping_none"), busy: false }); }
  };
  return html`<button type="button" class="plain small" disabled=${state.busy} title=${t("mesh.ping_who", { name: member.name })} onClick=${go}>${state.text}</button>`;
}

function Invite() {
  const [token, setToken] = useState(""), [picture, setPicture] = useState("");
  const [error, setError] = useState(null);
  const invite = async () => {
    setError(null);
    const made = await post("/v1/invites");
    setToken(made.token);
    try { setPicture(URL.createObjectURL(await (await send("POST", "/page/qr", made.token, "text/plain")).blob())); } catch (why) { setError(why); }
  };
  const box = useRef(null);
  useEffect(() => box.current?.focus(), [token]);
  useEffect(() => () => { if (picture) URL.revokeObjectURL(picture); }, [picture]);
  const command = `offgrid-node join ${token}`;
  return html`<${Section} title=${t("invite.title")} hint=${t("invite.hint")}>
    <div class="row"><${Act} verb=${t(token ? "invite.another" : "invite.make")} work=${invite} plain=${Boolean(token)} /></div>
    <${Problem} error=${error} />
    ${token && html`<div class="invite">${picture && html`<img src=${picture} alt=${t("invite.qr")} width="220" height="220" />`}
      <div tabindex="-1" ref=${box}><p>${t("invite.type")}</p><p><code class="wrap">${command}</code></p><p><${Copy} text=${command} /></p></div></div>`}
  <//>`;
}

function Links({ links }) {
  if (!links.length) return html`<${Empty} text=${t("links.empty")} command="offgrid link list" />`;
  return links.map((link) => html`<article class="link" key=${link.link}>
    <h3><code class="wrap">${link.link}</code> <${Badge} tone=${link.up ? "good" : "bad"}>${t(link.up ? "links.up" : "links.down")}<//></h3>
    <${Facts} rows=${[
      link.bitrate_bps > 0 && [t("links.bitrate"), `${num(link.bitrate_bps)} bit/s`],
      link.shared && [t("links.shared"), t("yes")],
      ...link.figures.map((figure) => [figure.name, figure.value]),
      ...link.left.map((left) => [t("links.left", { urgency: t(`urgency.${plain(left.urgency)}`) }), span(left.left_ms)]),
    ]} />
    ${link.used.length > 0 && html`<${Table} tight caption=${t("links.used")} rows=${link.used.slice(0, 100)} keyOf=${(use) => `${use.who} ${use.urgency}`} columns=${[
      { head: t("links.who"), cell: (use) => use.name || use.who },
      { head: t("links.for"), cell: (use) => t(`urgency.${plain(use.urgency)}`) },
      { head: t("links.air"), num: true, cell: (use) => span(use.air_ms) },
      { head: t("links.share"), wide: true, cell: (use) => html`<${Bar} value=${use.air_ms} max=${link.used[0].air_ms} label=${span(use.air_ms)} />` },
    ]} />`}
  </article>`);
}

// ---- the map: this node in the middle, the others around it, each on the road that the next call would take

// Places around the middle, in rings of at most RING_MAX; the same for the same members, whoever of them is away.
// `stretch`: how much wider than high.
function places(count, stretch) {
  const rings = Math.max(1, Math.ceil(count / RING_MAX)), each = Math.ceil(count / rings);
  return Array.from({ length: count }, (_, at) => {
    const ring = Math.floor(at / each), here = Math.min(each, count - ring * each);
    const angle = (2 * Math.PI * ((at % each) + (here % 2 ? 0 : 0.5))) / here - (here > 1 ? Math.PI / 2 : 0) + ring * 0.2; // none straight below the middle's name
    const radius = RADIUS + ring * RING;
    return { x: Math.cos(angle) * radius * stretch, y: Math.sin(angle) * radius };
  });
}

function MeshMap({ peers, roads }) {
  const self = peers.find((peer) => peer.self);
  const narrow = useNarrow(), stretch = narrow ? 0.95 : 2, most = narrow ? DRAWN_NARROW_MAX : DRAWN_MAX;
  const awayFirst = peers.filter((peer) => !peer.self).sort((a, b) => (lifeOf(a) === "ALIVE") - (lifeOf(b) === "ALIVE") || byId(a, b));
  const others = awayFirst.slice(0, most).sort(byId);
  const marks = others.length <= (narrow ? LABELLED_MAX / 2 : LABELLED_MAX) ? ["line", "text"] : ["line"]; // words above all lines
  const spots = places(others.length, stretch), rings = Math.max(1, Math.ceil(others.length / RING_MAX));
  const radius = RADIUS + (rings - 1) * RING, width = 2 * radius * stretch + 130;
  const low = Math.max(70, ...spots.map((spot) => spot.y + 65)), high = Math.min(-50, ...spots.map((spot) => spot.y - 65));
  return html`<svg class="map" viewBox=${`${-width / 2} ${high} ${width} ${low - high}`} role="img" aria-label=${t("mesh.map_label", { n: others.length })}>
    ${marks.map((what) => others.map((peer, at) => html`<${RoadMark} key=${`${what} ${peer.member.node_id}`} what=${what} road=${inUse(roads.get(peer.member.node_id))} life=${lifeOf(peer)} to=${spots[at]} narrow=${narrow} />`))}
    ${others.map((peer, at) => html`<${Spot} key=${peer.member.node_id} peer=${peer} x=${spots[at].x} y=${spots[at].y} bare=${marks.length === 1} />`)}
    ${self && html`<${Spot} peer=${self} x=${0} y=${0} />`}
  </svg>${awayFirst.length > most && html`<p class="hint">${t("mesh.map_more", { n: awayFirst.length - most })}</p>`}`;
}

function Spot({ peer, x, y, bare }) {
  const life = lifeOf(peer), name = peer.member.name;
  const roles = peer.roles_in_force.map((role) => t(`role.${plain(role)}`)).join(", ");
  const under = y < -40 ? -42 : peer.self ? 42 : 35; // names stand away from the middle
  return html`<g class=${`spot ${LIFE_TONES[life]} ${peer.self ? "self" : ""}`} transform=${`translate(${x} ${y})`} data-node=${name} data-life=${life}>
    <title>${name} · ${t(`life.${life}`)} · ${roles}</title>
    <circle r=${peer.self ? 24 : 18} /><text class="glyph" y="5">${{ ALIVE: "✓", SUSPECT: "?", DEAD: "✕" }[life] ?? ""}</text>
    <text class="name" y=${under}>${name.length > 16 ? `${name.slice(0, 15)}…` : name}</text>
    ${!bare && html`<text class="role" y=${under + 15}>${roles}</text>`}
  </g>`;
}

function RoadMark({ what, road, life, to, narrow }) {
  const tone = life === "DEAD" ? "bad" : { IN_USE: "good", READY: "good", FAILING: "warn", DOWN: "bad" }[road && plain(road.state)] ?? "quiet";
  if (what === "line") {
    const width = road?.bytes_per_s ? Math.min(6, 1.5 + Math.log10(road.bytes_per_s) / 2) : 2;
    return html`<line class=${`road ${tone}`} x1="0" y1="0" x2=${to.x} y2=${to.y} stroke-width=${width} stroke-dasharray=${tone === "bad" ? "4 5" : null} />`;
  }
  if (!road) return null;
  const said = [`${road.via.split(":")[0]}${road.hops.length > 0 ? ` (+${road.hops.length})` : ""}`, ...(narrow || life === "DEAD" ? [] : [[
    road.rtt_ms != null && `${num(road.rtt_ms, road.rtt_ms < 10 ? 1 : 0)} ms`,
    road.bytes_per_s > 0 && rate(road.bytes_per_s),
    road.loss_milli > 0 && t("mesh.loss_of", { share: percent(road.loss_milli / 1e3, 1) }),
  ].filter(Boolean).join(" · ")])].filter(Boolean);
  const width = Math.max(...said.map((line) => line.length)) * 6.4 + 8, height = said.length * 15 + 4;
  return html`<g class="figures" transform=${`translate(${to.x * 0.6} ${to.y * 0.6})`}><rect x=${-width / 2} y=${-height / 2} width=${width} height=${height} />
    ${said.map((line, at) => html`<text y=${(at - said.length / 2) * 15 + 12}>${line}</text>`)}</g>`;
}
