// Messages to and from members, whether they are up or away.

import { html, useState } from "../vendor/htm-preact.js";
import { useLive, usePages } from "../lib/live.js";
import { bytesOf, post, save, seg } from "../lib/node.js";
import { Act, Badge, Empty, Facts, Loaded, Section, Table, useNames, When } from "../lib/parts.js";
import { bytes, moment, num, plain, t } from "../lib/reader.js";

const MAIL_TONES = { WAITING: "warn", HELD: "busy", TAKEN: "good", ANSWERED: "good", REFUSED: "bad", EXPIRED: "bad" };

export function Mail() {
  const sent = usePages("/v1/mail?newest_first=true", { field: "mail", on: ["MAIL_"], every: 30_000 });
  const box = useLive("/v1/mailbox?page_size=1", { on: ["MAIL_"], every: 60_000 });
  const name = useNames();
  return html`<h1 tabindex="-1">${t("nav.mail")}</h1><${Received} name=${name} />
    <${Section} title=${t("mail.sent")} hint=${t("mail.sent_hint")}><${Loaded} live=${sent}>${() => html`
      <${Table} caption=${t("mail.sent")} rows=${sent.rows} more=${sent.more} busy=${sent.busy} keyOf=${(mail) => mail.number} empty=${html`<${Empty} text=${t("mail.none_sent")} command="offgrid mail send NODE --text '…'" />`} columns=${[
        { head: t("transfer.to"), cell: (mail) => name(mail.destination) },
        { head: t("jobs.state"), bare: true, cell: (mail) => html`<${Badge} tone=${MAIL_TONES[plain(mail.state)]}>${t(`mail.${plain(mail.state)}`)}<//>` },
        { head: t("mail.subject"), bare: true, cell: (mail) => mail.subject || "–" },
        { head: t("mail.at"), wide: true, cell: (mail) => mail.mailboxes.map(name).join(", ") || "–" },
        { head: t("tx.when"), cell: (mail) => html`<${When} us=${mail.sent_us} />` },
        { head: t("storage.expires"), wide: true, cell: (mail) => mail.ended_us ? "–" : moment(mail.expires_us) },
      ]} />`}<//><//>
    <${Section} title=${t("mail.box")} hint=${t("mail.box_hint")}><${Loaded} live=${box}>${() => html`<${Facts} rows=${[
      [t("mail.parcels"), num(box.data.count)], [t("retention.used"), `${bytes(box.data.used_bytes)} / ${bytes(box.data.limit_bytes)}`],
    ]} />`}<//><//>`;
}

function Received({ name }) {
  const live = usePages("/v1/messages?newest_first=true", { field: "messages", on: ["MAIL_"], every: 30_000 });
  const [open, set] = useState({ id: "" });
  const read = (id) => async () => { set({ id, bytes: bytesOf((await post(`/v1/messages/${seg(id)}:read`)).data) }); live.reload(); };
  return html`<${Section} title=${t("mail.received")}><${Loaded} live=${live}>${() => html`
    <${Table} caption=${t("mail.received")} rows=${live.rows} more=${live.more} busy=${live.busy} keyOf=${(message) => message.message_id} empty=${html`<${Empty} text=${t("mail.none")} />`} columns=${[
      { head: t("tx.from"), cell: (message) => html`<strong>${name(message.source)}</strong> ${!message.read && html`<${Badge} tone="busy">${t("mail.new")}<//>`}` },
      { head: t("mail.subject"), bare: true, cell: (message) => message.message_id === open.id ? html`<pre tabindex="0">${new TextDecoder().decode(open.bytes)}</pre>` : message.name || bytes(message.size_bytes) },
      { head: t("tx.when"), cell: (message) => html`<${When} us=${message.received_us} />` },
      { head: t("mesh.actions"), bare: true, cell: (message) => message.message_id === open.id ? html`<button type="button" class="plain" onClick=${() => save(new Blob([open.bytes]), message.name || message.message_id)}>${t("download")}</button>`
        : html`<${Act} verb=${t("mail.read")} work=${read(message.message_id)} />` },
    ]} />`}<//><//>`;
}
