// How this reader is spoken to: what they chose, the words of their language, and numbers, sizes, times and money as they
// are written there. What is chosen is kept by the browser. A key that a language lacks is a defect, which a test finds.

const DEFAULTS = { language: "", theme: "", zone: "local" };
let kept = {};
try { kept = JSON.parse(localStorage.getItem("offgrid.prefs") ?? "{}"); } catch { /* storage is off: for this visit alone */ }
export const prefs = { ...DEFAULTS, ...kept };
const choosers = new Set();

export function choose(part) {
  Object.assign(prefs, part);
  try { localStorage.setItem("offgrid.prefs", JSON.stringify(prefs)); } catch { /* likewise */ }
  apply();
  for (const listener of choosers) listener();
}

export function onChoice(listener) {
  choosers.add(listener);
  return () => choosers.delete(listener);
}

export function apply() {
  document.documentElement.dataset.theme = prefs.theme || "auto";
}

// ---- words

export const LANGUAGES = { en: "English", de: "Deutsch" };

export function language() {
  if (LANGUAGES[prefs.language]) return prefs.language;
  return navigator.languages.map((tag) => tag.slice(0, 2)).find((tag) => LANGUAGES[tag]) ?? "en";
}

const { default: book } = await import(`../words/${language()}.js`);

// As the reader's system writes numbers and dates, in the page's language.
export function locale() {
  const lang = language();
  return navigator.languages.find((tag) => tag.startsWith(lang)) ?? lang;
}

const plurals = {};

function find(key) {
  const dot = key.indexOf(".");
  return book[key.slice(0, Math.max(0, dot))]?.[key.slice(dot + 1)];
}

// The words of `key`, "group.word", with {names} filled in; by `n`, of key.one and key.other the one that fits.
export function t(key, values = {}) {
  let words = find(key);
  if (words === undefined && "n" in values) {
    const rules = plurals[language()] ??= new Intl.PluralRules(language());
    words = find(`${key}.${rules.select(values.n)}`) ?? find(`${key}.other`);
  }
  return (words ?? key).replace(/\{(\w+)\}/g, (whole, name) => values[name] === undefined ? whole : String(filled(values[name])));
}

const filled = (value) => typeof value === "number" ? new Intl.NumberFormat(locale()).format(value) : value;

// ---- numbers, sizes, times and money

const made = new Map(); // making a formatter takes far longer than using it

function maker(kind, options) {
  const key = `${kind.name} ${locale()} ${JSON.stringify(options)}`;
  if (!made.has(key)) made.set(key, new kind(locale(), options));
  return made.get(key);
}

export const num = (value, digits = 0) => maker(Intl.NumberFormat, { maximumFractionDigits: digits }).format(value);
export const percent = (share, digits = 0) => maker(Intl.NumberFormat, { style: "percent", maximumFractionDigits: digits }).format(share);
const unit = (value, name, digits, unitDisplay = "short") => maker(Intl.NumberFormat, { style: "unit", unit: name, unitDisplay, maximumFractionDigits: digits }).format(value);

const SIZES = [[1e12, "terabyte"], [1e9, "gigabyte"], [1e6, "megabyte"], [1e3, "kilobyte"], [1, "byte"]];

export function bytes(value) {
  const [size, name] = SIZES.find(([least]) => value >= least) ?? SIZES.at(-1);
  return unit(value / size, name, value / size < 10 && size > 1 ? 1 : 0, size > 1 ? "short" : "long");
}

export const rate = (perSecond) => `${bytes(perSecond)}/s`;

const SPANS = [[86_400_000, "day"], [3_600_000, "hour"], [60_000, "minute"], [1_000, "second"], [1, "millisecond"]];

export function span(ms) {
  const [size, name] = SPANS.find(([least]) => ms >= least) ?? SPANS.at(-1);
  return unit(ms / size, name, ms / size < 10 ? 1 : 0);
}

// How long ago, in whole seconds, minutes, hours or days.
export function ago(us, nowUs) {
  if (!us) return "–";
  const seconds = Math.round((nowUs - us) / 1e6);
  if (seconds < 2 && seconds > -5) return t("time.now");
  const [size, name] = [[86_400, "day"], [3_600, "hour"], [60, "minute"], [1, "second"]].find(([least]) => Math.abs(seconds) >= least);
  return maker(Intl.RelativeTimeFormat, { style: "short", numeric: "always" }).format(-Math.round(seconds / size), name);
}

const zone = () => prefs.zone === "UTC" ? { timeZone: "UTC" } : {};

const written = (us, styles) => `${maker(Intl.DateTimeFormat, { ...styles, ...zone() }).format(us / 1e3)}${prefs.zone === "UTC" ? " UTC" : ""}`;

export const clock = (us) => written(us, { timeStyle: "medium" });
export const moment = (us) => us ? written(us, { dateStyle: "medium", timeStyle: "medium" }) : "–";
// At an axis whose ticks are `step` seconds apart.
export const tick = (us, step) => maker(Intl.DateTimeFormat, {
  ...(step < 86_400 ? { hour: "2-digit", minute: "2-digit" } : { month: "short", day: "numeric" }),
  ...(step < 60 ? { second: "2-digit" } : {}), ...(step < 1 ? { fractionalSecondDigits: 3 } : {}), hourCycle: "h23", ...zone(),
}).format(us / 1e3);
// The time, with the day unless it is today.
export const stamp = (us) => dayOf(us) === dayOf(Date.now() * 1e3) ? clock(us) : moment(us);
const dayOf = (us) => written(us, { dateStyle: "short" });
export const iso = (us) => us ? new Date(us / 1e3).toISOString() : undefined;

// What a field for date and time has and gives, in the reader's zone; 0: nothing.
export function fieldOf(us) {
  const at = new Date(us / 1e3 - (prefs.zone === "UTC" ? 0 : new Date(us / 1e3).getTimezoneOffset() * 60_000));
  return at.toISOString().slice(0, 19);
}
export const usOf = (text) => text ? Date.parse(prefs.zone === "UTC" ? `${text}Z` : text) * 1e3 : 0;

// Millionths of a credit, exactly.
export function credits(micro, digits = 6) {
  const whole = BigInt(Math.trunc(micro ?? 0)), sign = whole < 0n ? "-" : "", size = whole < 0n ? -whole : whole;
  const text = `${sign}${size / 1_000_000n}.${String(size % 1_000_000n).padStart(6, "0")}`;
  return maker(Intl.NumberFormat, { minimumFractionDigits: 0, maximumFractionDigits: digits }).format(text);
}

// The sign between the whole and its parts, as amounts are shown to this reader.
const decimalSign = () => maker(Intl.NumberFormat, {}).formatToParts(0.5).find((part) => part.type === "decimal").value;

// What somebody typed, in millionths; NaN where it is no amount. Digits are never grouped: elsewhere the same sign divides
// the whole from its parts, and money must not be read twice.
export function microOf(text) {
  const [whole, parts = "", ...more] = text.trim().split(decimalSign());
  const good = /^\d{1,9}$/.test(whole) && /^\d{0,6}$/.test(parts) && !more.length && !/\D$/.test(text.trim());
  return good ? Number(whole) * 1e6 + Number(parts.padEnd(6, "0")) : NaN;
}

export const weight = (milli) => num((milli ?? 0) / 1_000, 3);
// What an enum of the node says: JOB_STATE_RUNNING is RUNNING.
export const plain = (value) => value.replace(/^(ROLE|ROUTE|LIVENESS|URGENCY|[A-Z]+_(STATE|STATUS|OUTCOME))_/, "");
// By which people tell ids apart: those of jobs, sessions and the like begin with the time.
export function short(id) {
  if (!id || id.length <= 14) return id || "–";
  return /^[jsmt]-/.test(id) ? `${id.slice(0, 2)}…${id.slice(-8)}` : `${id.slice(0, 8)}…`;
}
