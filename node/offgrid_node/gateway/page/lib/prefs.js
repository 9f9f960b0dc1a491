// What a reader chose, kept by the browser: language, theme, time zone.

const DEFAULTS = { language: "", theme: "", zone: "local" };
let kept = {};
try { kept = JSON.parse(localStorage.getItem("offgrid.prefs") ?? "{}"); } catch { /* storage is off: for this visit alone */ }
export const prefs = { ...DEFAULTS, ...kept };
const listeners = new Set();

export function choose(part) {
  Object.assign(prefs, part);
  try { localStorage.setItem("offgrid.prefs", JSON.stringify(prefs)); } catch { /* likewise */ }
  apply();
  for (const listener of listeners) listener();
}

export function onChoice(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function apply() {
  document.documentElement.dataset.theme = prefs.theme || "auto";
}
