// Numbers, sizes, times and money as people read them, in their language and time zone.

import { prefs } from "./prefs.js";
import { locale, t } from "./words.js";

const made = new Map(); // making a formatter takes far longer than using it

function maker(kind, options) {
  const key = `${kind.name} ${locale()} ${JSON.stringify(options)}`;
  if (!made.has(key)) made.set(key, new kind(locale(), options));
  return made.get(key);
}

export const num = (value, digits = 0) => maker(Intl.NumberFormat, { maximumFractionDigits: digits }).format(value);
export const percent = (share, digits = 0) => maker(Intl.NumberFormat, { style: "percent", maximumFractionDigits: digits }).format(share);
const unit = (value, name, digits) => maker(Intl.NumberFormat, { style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: digits }).format(value);

const SIZES = [[1e12, "terabyte"], [1e9, "gigabyte"], [1e6, "megabyte"], [1e3, "kilobyte"], [1, "byte"]];

export function bytes(value) {
  const [size, name] = SIZES.find(([least]) => value >= least) ?? SIZES.at(-1);
  return unit(value / size, name, value / size < 10 && size > 1 ? 1 : 0);
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

export const clock = (us) => maker(Intl.DateTimeFormat, { timeStyle: "medium", ...zone() }).format(us / 1e3);
export const moment = (us) => us ? maker(Intl.DateTimeFormat, { dateStyle: "medium", timeStyle: "medium", ...zone() }).format(us / 1e3) : "–";
// At an axis whose ticks are `step` seconds apart.
export const tick = (us, step) => maker(Intl.DateTimeFormat, {
  ...(step < 86_400 ? { hour: "2-digit", minute: "2-digit" } : { month: "short", day: "numeric" }),
  ...(step < 60 ? { second: "2-digit" } : {}), ...(step < 1 ? { fractionalSecondDigits: 2 } : {}), hourCycle: "h23", ...zone(),
}).format(us / 1e3);
export const iso = (us) => us ? new Date(us / 1e3).toISOString() : undefined;

// Millionths of a credit, exactly.
export function credits(micro, digits = 6) {
  const whole = BigInt(Math.trunc(micro ?? 0)), sign = whole < 0n ? "-" : "", size = whole < 0n ? -whole : whole;
  const text = `${sign}${size / 1_000_000n}.${String(size % 1_000_000n).padStart(6, "0")}`;
  return maker(Intl.NumberFormat, { minimumFractionDigits: 0, maximumFractionDigits: digits }).format(text);
}

// What somebody typed, in millionths; NaN where it is no amount.
export function microOf(text) {
  const found = /^\s*(\d{1,9})(?:[.,](\d{1,6}))?\s*$/.exec(text);
  return found ? Number(found[1]) * 1e6 + Number((found[2] ?? "").padEnd(6, "0")) : NaN;
}

export const weight = (milli) => num((milli ?? 0) / 1_000, 3);
// By which people tell ids apart: those of jobs, sessions and the like begin with the time.
export function short(id) {
  if (!id || id.length <= 14) return id || "–";
  return /^[jsmt]-/.test(id) ? `${id.slice(0, 2)}…${id.slice(-8)}` : `${id.slice(0, 8)}…`;
}
