// Members, the roads to them and the links that carry those; inviting and removing.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { call, post, seg, send } from "../lib/api.js";
import { Act, Badge, Bar, Confirm, Copy, Empty, Facts, Id, Loaded, Problem, Section, Table } from "../lib/parts.js";
import { num, percent, rate, span, weight } from "../lib/format.js";
import { useLive } from "../lib/live.js";
import { t } from "../lib/words.js";
import { MeshMap } from "./mesh_map.js";

export const TONES = { ALIVE: "good", SUSPECT: "warn", DEAD: "bad", UNSPECIFIED: "quiet" };
export const lifeOf = (peer) => peer.liveness.replace("LIVENESS_", "");
export const inUse = (peerRoads) => peerRoads?.roads.find((road) => road.state === "ROAD_STATE_IN_USE") ?? peerRoads?.roads[0];

export function Mesh() {
  const peers = useLive("/v1/peers?page_size=1000", { on: ["MEMBER_", "PEER_"], every: 15_000, parts: ["peers"] });
  const roads = useLive("/v1/roads", { on: ["PEER_"], every: 5_000 });
  const links = useLive("/v1/links", { parts: ["links"], every: 30_000 });
  const byId = new Map((roads.data?.peers ?? []).map((one) => [one.node_id, one]));
  return html`<h1 tabindex="-1">${t("nav.mesh")}</h1>
    <${Loaded} live=${peers}>${() => {
      const rows = peers.data.peers.filter((peer) => !peer.member.removed);
      return html`
        <${Section} title=${t("mesh.map")} hint=${t("mesh.map_hint")}><${MeshMap} peers=${rows} roads=${byId} /><//>
        <${Members} rows=${rows} roads=${byId} reload=${peers.reload} />`;
    }}<//>
    <${Problem} error=${roads.error} />
    <${Invite} />
    <${Section} title=${t("links.title")} hint=${t("links.hint")}><${Loaded} live=${links}>${() => html`<${Links} links=${links.data.links} />`}<//><//>`;
}

function Members({ rows, roads, reload }) {
  const [leaving, remove] = useState(null);
  const road = (peer) => inUse(roads.get(peer.member.node_id));
  return html`<${Section} title=${t("mesh.members")}>
    <${Table} caption=${t("mesh.members")} rows=${rows} keyOf=${(peer) => peer.member.node_id}
      empty=${html`<${Empty} text=${t("mesh.empty")} command="offgrid mesh invite" />`} columns=${[
        { head: t("node.name"), cell: (peer) => html`<strong>${peer.member.name}</strong>${peer.self && html` <span class="quiet">${t("mesh.self")}</span>`}` },
        { head: t("mesh.life"), cell: (peer) => html`<${Badge} tone=${TONES[lifeOf(peer)]}>${t(`life.${lifeOf(peer)}`)}<//>` },
        { head: t("node.roles"), cell: (peer) => peer.roles_in_force.map((role) => t(`role.${role.replace("ROLE_", "")}`)).join(", ") },
        { head: t("mesh.road"), cell: (peer) => road(peer) ? html`<code>${road(peer).via}</code> <span class="quiet">${t(`road.${road(peer).state.replace("ROAD_STATE_", "")}`)}</span>` : "–" },
        { head: t("mesh.rtt"), num: true, cell: (peer) => road(peer)?.rtt_ms != null ? `${num(road(peer).rtt_ms, 1)} ms` : "–" },
        { head: t("mesh.rate"), num: true, wide: true, cell: (peer) => road(peer)?.bytes_per_s ? rate(road(peer).bytes_per_s) : "–" },
        { head: t("mesh.loss"), num: true, wide: true, cell: (peer) => road(peer)?.loss_milli != null ? percent(road(peer).loss_milli / 1e3, 1) : "–" },
        { head: t("mesh.weight"), num: true, wide: true, cell: (peer) => weight(peer.member.weight_milli) },
        { head: t("node.id"), wide: true, cell: (peer) => html`<${Id} id=${peer.member.node_id} />` },
        { head: t("mesh.actions"), cell: (peer) => peer.self ? "" : html`<button type="button" class="plain small" aria-label=${t("mesh.remove_who", { name: peer.member.name })} onClick=${() => remove(peer.member)}>${t("mesh.remove")}</button>` },
      ]} />
    ${leaving && html`<${Confirm} title=${t("mesh.remove_who", { name: leaving.name })} text=${t("mesh.remove_text", { name: leaving.name })} verb=${t("mesh.remove")}
      onClose=${() => remove(null)} onYes=${async () => { await call("DELETE", `/v1/members/${seg(leaving.node_id)}`); reload(); }} />`}
  <//>`;
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
  useEffect(() => () => { if (picture) URL.revokeObjectURL(picture); }, [picture]);
  const command = `offgrid-node join ${token}`;
  return html`<${Section} title=${t("invite.title")} hint=${t("invite.hint")}>
    <div class="row"><${Act} verb=${t(token ? "invite.another" : "invite.make")} work=${invite} plain=${Boolean(token)} /></div>
    <${Problem} error=${error} />
    ${token && html`<div class="invite">${picture && html`<img src=${picture} alt=${t("invite.qr")} width="220" height="220" />`}
      <div><p>${t("invite.type")}</p><p><code class="wrap">${command}</code></p><p><${Copy} text=${command} /></p></div></div>`}
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
      ...link.left.map((left) => [t("links.left", { urgency: t(`urgency.${left.urgency.replace("URGENCY_", "")}`) }), span(left.left_ms)]),
    ]} />
    ${link.used.length > 0 && html`<${Table} tight caption=${t("links.used")} rows=${link.used.slice(0, 100)} keyOf=${(use) => `${use.who} ${use.urgency}`} columns=${[
      { head: t("links.who"), cell: (use) => use.name || use.who },
      { head: t("links.for"), cell: (use) => t(`urgency.${use.urgency.replace("URGENCY_", "")}`) },
      { head: t("links.air"), num: true, cell: (use) => span(use.air_ms) },
      { head: t("links.share"), wide: true, cell: (use) => html`<${Bar} value=${use.air_ms} max=${link.used[0].air_ms} label=${span(use.air_ms)} />` },
    ]} />`}
  </article>`);
}
