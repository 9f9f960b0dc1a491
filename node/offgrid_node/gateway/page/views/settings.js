// What the reader chose, which versions these are, where more is written; signing in and out.

import { html, useRef, useState } from "../vendor/htm-preact.js";
import { useLive } from "../lib/live.js";
import { isSignedIn, signIn, signOut } from "../lib/node.js";
import { Act, Empty, Facts, Field, Problem, Section } from "../lib/parts.js";
import { choose, LANGUAGES, prefs, t } from "../lib/reader.js";

const THEMES = ["", "light", "dark"], ZONES = ["local", "UTC"];

export function Settings() {
  const status = useLive("/v1/status", { every: 60_000 });
  const select = (name, options, words) => (field) => html`<select ...${field} value=${prefs[name]} onChange=${(event) => { choose({ [name]: event.target.value }); if (name === "language") location.reload(); }}>${options.map((value) => html`<option value=${value}>${words(value)}</option>`)}</select>`;
  return html`<h1 tabindex="-1">${t("nav.settings")}</h1>
    <${Section} title=${t("settings.reader")} hint=${t("settings.reader_hint")}><div class="grid">
      <${Field} label=${t("settings.language")}>${select("language", ["", ...Object.keys(LANGUAGES)], (value) => LANGUAGES[value] ?? t("settings.auto"))}<//>
      <${Field} label=${t("settings.theme")}>${select("theme", THEMES, (value) => t(`theme.${value || "auto"}`))}<//>
      <${Field} label=${t("settings.zone")}>${select("zone", ZONES, (value) => t(`zone.${value}`))}<//>
    </div><//>
    <${Section} title=${t("settings.about")}><${Facts} rows=${[
      status.data && [t("node.version"), `offgrid ${status.data.version}`],
      [t("settings.docs"), html`<a href="/docs">/docs</a>`],
      [t("settings.api"), html`<a href="/openapi.json">/openapi.json</a>`],
      [t("settings.metrics"), html`<a href="/metrics">/metrics</a>`],
      [t("settings.uses"), "Preact, htm (Apache-2.0, MIT), uPlot (MIT)"],
    ]} />
      ${isSignedIn() && html`<div class="row"><${Act} verb=${t("settings.sign_out")} work=${async () => { await signOut(); location.reload(); }} /></div>`}
    <//>`;
}

// Where the node asks for a token: it is sent once, and the browser keeps the cookie that comes back.
export function SignIn({ why, linkOver, done }) {
  const input = useRef(null);
  const [error, setError] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    try { await signIn({ token: input.current.value.trim() }); done(); } catch (why) { setError(why.details?.some((detail) => detail.reason === "TokenWrong") ? new Error(t("signin.wrong")) : why); }
  };
  if (why.details.some((detail) => ["OtherUser", "UnknownUser"].includes(detail.reason))) return html`<h1 tabindex="-1">${t("signin.title")}</h1><${Problem} error=${why} retry=${done} />`; // no token helps
  return html`<h1 tabindex="-1">${t("signin.title")}</h1>
    <form class="panel narrow" onSubmit=${submit}>
      <p>${t(linkOver ? "signin.link_over" : "signin.text")}</p>
      <${Field} label=${t("signin.token")}>${(field) => html`<input ...${field} ref=${input} type="password" autocomplete="current-password" required />`}<//>
      <${Problem} error=${error} />
      <button type="submit">${t("signin.go")}</button>
      <${Empty} text=${t("signin.where")} command="offgrid page --open" />
    </form>`;
}
