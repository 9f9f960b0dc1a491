// The page's words in the reader's language. A key that a language lacks is a defect; a test holds both books together.

import { prefs } from "./prefs.js";

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

// The words of `key` with {names} filled in; by `n`, of key.one and key.other the one that fits.
export function t(key, values = {}) {
  let words = book[key];
  if (words === undefined && "n" in values) {
    const rules = plurals[language()] ??= new Intl.PluralRules(language());
    words = book[`${key}.${rules.select(values.n)}`] ?? book[`${key}.other`];
  }
  return (words ?? key).replace(/\{(\w+)\}/g, (whole, name) => values[name] === undefined ? whole : String(shown(values[name])));
}

const shown = (value) => typeof value === "number" ? new Intl.NumberFormat(locale()).format(value) : value;
