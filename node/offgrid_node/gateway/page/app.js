// The shell: where one is, how the node is reached, and the view of the address behind the #.

import { html, render, useEffect, useErrorBoundary, useReducer, useRef, useState } from "./vendor/htm-preact.js";
import { useLive, useNow } from "./lib/live.js";
import { connect, hasMoved, listen, onSignedOut, pause, report, feed, signIn } from "./lib/node.js";
import { isOfMail, Mark, Problem, say } from "./lib/parts.js";
import { apply, choose, language, onChoice, prefs, t } from "./lib/reader.js";
import { Events, Session, Sessions } from "./views/events.js";
import { Job, Jobs } from "./views/jobs.js";
import { Ledger } from "./views/ledger.js";
import { Mail } from "./views/mail.js";
import { Mesh } from "./views/mesh.js";
import { Overview } from "./views/overview.js";
import { UploadMark } from "./views/put_form.js";
import { Settings, SignIn } from "./views/settings.js";
import { StorageView } from "./views/storage.js";

const VIEWS = { overview: Overview, mesh: Mesh, jobs: Jobs, storage: StorageView, ledger: Ledger, events: Events, sessions: Sessions, mail: Mail, settings: Settings };
const DETAILS = { jobs: Job, sessions: Session };
const TABS = { jobs: ["offers", "schedules", "host"], storage: ["risk", "outbox", "quorums", "retention", "backups"], ledger: ["transactions", "blocks", "epochs"] };

function placeOf(hash) {
  const [name = "", ...rest] = hash.replace(/^#\/?/, "").split("/").map(decode);
  const view = VIEWS[name] ? name : "overview", part = rest.join("/");
  return { view, part, tab: TABS[view]?.includes(part) ? part : "", lost: name && name !== view };
}

// The link of `offgrid page` has a code behind the #, which signs one browser in, once.
function codeOf(hash) {
  return /^#code=([\w-]+)$/.exec(hash)?.[1];
}

function decode(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

function App() {
  const [place, go] = useState(() => placeOf(location.hash));
  const [, again] = useReducer((count) => count + 1, 0);
  const [signedOut, setSignedOut] = useState(null);
  const [other, forget] = useState(hasMoved), moved = useRef(false);
  useEffect(() => {
    const move = () => {
      if (codeOf(location.hash)) { location.reload(); return; }
      moved.current = true;
      forget(false);
      go(placeOf(location.hash));
    };
    addEventListener("hashchange", move);
    go(placeOf(location.hash)); // it may have changed since this was drawn first
    return () => removeEventListener("hashchange", move);
  }, []);
  useEffect(() => onChoice(again), []);
  useEffect(() => onSignedOut((why) => { pause(); setSignedOut(why); }), []);
  useEffect(() => { // a reader of another view begins at its top
    if (!moved.current) return;
    scrollTo(0, 0);
    document.querySelector("main h1")?.focus({ preventScroll: true });
  }, [place.view, place.part]);
  const status = useLive(signedOut ? "" : "/v1/status", { on: ["MAIL_"], every: 60_000 });
  const marks = { storage: html`<${UploadMark} />`, mail: html`<${Mark} text=${unread(status.data)} />` };
  const node = status.data?.name ?? "offgrid";
  document.title = `${t(`nav.${place.view}`)} · ${node}`;
  document.documentElement.lang = language();
  const View = place.part && !place.tab && DETAILS[place.view] ? DETAILS[place.view] : VIEWS[place.view];
  return html`<a class="skip" href="#main" onClick=${skip}>${t("skip")}</a>
    <header class="top">
      <a class="brand" href="#/overview"><span class="mark" aria-hidden="true"></span><strong>${node}</strong>${status.data && html`<span class="mesh-name">${status.data.mesh}</span>`}</a>
      <${Connection} />
      <${ThemeSwitch} />
    </header>
    <nav class="main-nav" aria-label=${t("nav.label")}><ul>${Object.keys(VIEWS).map((name) => html`<li><a href=${`#/${name}`} aria-current=${name === place.view ? "page" : undefined}>${t(`nav.${name}`)}${marks[name]}</a></li>`)}</ul></nav>
    <main id="main" tabindex="-1">${place.lost && html`<p class="notice" role="alert">${t("nav.lost")}</p>`}${other && status.data && html`<p class="notice" role="alert">${t("feed.moved", { node })}</p>`}${signedOut ? html`<${SignIn} why=${signedOut} linkOver=${linkOver} done=${() => { linkOver = false; setSignedOut(null); connect(); }} />`
      : html`<${Guarded} key=${`${place.view}/${place.tab ? "" : place.part}`}><${View} part=${place.part} tab=${place.tab} /><//>`}</main>
    <div id="said" class="sr" role="status" aria-live="polite"></div>`;
}

function unread(status) {
  return status?.notices.find(isOfMail)?.match(/\d+/)[0];
}

// A view with a defect says so, and leaves the others alone.
function Guarded({ children }) {
  const [error, again] = useErrorBoundary(report);
  return error ? html`<${Problem} error=${error} retry=${again} />` : children;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function Connection() {
  const [state, set] = useState(feed);
  const was = useRef(state.name);
  useEffect(() => {
    set(feed); // it may have changed since this was drawn first
    return listen("state", set);
  }, []);
  useEffect(() => {
    if (was.current === "live" && state.name === "away") say(t("feed.away"));
    if (was.current === "away" && state.name === "live") say(t("feed.live"));
    was.current = state.name;
  }, [state.name]);
  const seconds = useNow((now) => Math.max(0, Math.ceil((state.retryAt - now / 1_000) / 1_000)));
  const tone = { live: "good", away: "bad" }[state.name] ?? "busy";
  return html`<span class=${`connection ${tone}`} title=${t(`feed.${state.name}`)}><span class="dot" aria-hidden="true"></span>
    <span>${state.name === "away" ? t("feed.retry", { seconds }) : t(`feed.${state.name}`)}</span></span>`;
}

function ThemeSwitch() {
  const dark = prefs.theme ? prefs.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = t(dark ? "theme.to_light" : "theme.to_dark");
  return html`<button type="button" class="plain icon" aria-label=${label} title=${label} onClick=${() => choose({ theme: dark ? "light" : "dark" })}>
    <svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">${dark
      ? html`<circle cx="10" cy="10" r="4" /><path class="stroke" d="M10 1v3M10 16v3M1 10h3M16 10h3M3.6 3.6l2.1 2.1M14.3 14.3l2.1 2.1M3.6 16.4l2.1-2.1M14.3 5.7l2.1-2.1" />`
      : html`<path d="M16.5 12.6A7 7 0 0 1 7.4 3.5a7 7 0 1 0 9.1 9.1Z" />`}</svg></button>`;
}

const code = codeOf(location.hash);
let linkOver = false; // used up, or too old: the token is asked for
if (code) {
  history.replaceState(null, "", "#/overview");
  await signIn({ code }).catch((error) => { linkOver = error.code === 401; });
}
apply();
document.getElementById("app").textContent = "";
render(html`<${App} />`, document.getElementById("app"));
connect();
