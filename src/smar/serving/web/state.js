// What is searched for. The address bar carries it, so a search can be shared, reloaded and gone back to.

import { nextDay } from "./dom.js";

export const COMPARED = 24;
export const SHORT = ["category", "brand"]; // columns whose values have a parameter of the same name; others have `f.NAME`
const END = /^(-?[\d.]+(e[-+]?\d+)?|\d{4}-\d\d-\d\d([T ][\d:.Z+-]+)?)$/; // of a range: a number or a date

const none = () => Object.create(null); // a column may be called as what every object has

export const empty = () => ({
  q: "",
  like: "", // id of the item whose like is looked for
  picture: null, // a File; it is not in the address
  mode: "adaptive",
  compare: false,
  values: none(), // column -> Set of chosen values
  ranges: none(), // column -> {low, high, below}, texts; `below` tells that `high` itself is left out
  sort: "",
});

/** The values chosen of a column, to read or to change. */
export const valuesOf = (state, column) => (state.values[column] ??= new Set());

const NO_RANGE = { low: "", high: "", below: false };
export const rangeOf = (state, column) => state.ranges[column] ?? NO_RANGE;

/** Bounds as text or numbers; what is neither a number nor a date sets none. */
export function setRange(state, column, low, high, below) {
  const [from, to] = [low, high].map((value) => plain(String(value ?? "").trim()));
  if (from || to) state.ranges[column] = { low: from, high: to, below: Boolean(below && to) };
  else delete state.ranges[column];
}

const plain = (text) => (!END.test(text) ? "" : isDate(text) ? text : Number.isFinite(Number(text)) ? String(Number(text)) : "");
export const isDate = (text) => /^\d{4}-\d\d-\d\d/.test(text);

export function fromAddress() {
  const address = new URLSearchParams(location.search);
  const state = empty();
  state.q = (address.get("q") ?? "").slice(0, 1000);
  state.like = address.get("like") ?? "";
  if (["text", "multimodal", "hybrid"].includes(address.get("mode"))) state.mode = address.get("mode");
  state.compare = address.get("compare") === "1";
  state.sort = address.get("sort") ?? "";
  for (const [name, value] of address) {
    const column = name.slice(2);
    if (SHORT.includes(name)) valuesOf(state, name).add(value);
    else if (name.startsWith("f.")) valuesOf(state, column).add(value);
    else if (name.startsWith("r.")) {
      const [low, high = ""] = value.split("..");
      setRange(state, column, low, high.replace(/^=/, ""), !high.startsWith("="));
    }
  }
  if (["low", "high", "below"].some((name) => address.has(name)))
    setRange(state, "price", address.get("low"), address.get("below") ?? address.get("high"), address.has("below"));
  return state;
}

export function toAddress(state) {
  const address = new URLSearchParams();
  if (state.q) address.set("q", state.q);
  if (state.like) address.set("like", state.like);
  if (state.mode !== "adaptive") address.set("mode", state.mode);
  if (state.compare) address.set("compare", "1");
  for (const [column, value] of chosen(state)) address.append(SHORT.includes(column) ? column : `f.${column}`, value);
  if (state.sort) address.set("sort", state.sort);
  for (const [column, { low, high, below }] of Object.entries(state.ranges)) {
    if (column !== "price") address.set(`r.${column}`, `${low}..${high && !below ? "=" : ""}${high}`);
    else {
      if (low) address.set("low", low);
      if (high) address.set(below ? "below" : "high", high);
    }
  }
  const text = address.toString();
  return text ? `${location.pathname}?${text}` : location.pathname; // which may be behind a proxy's prefix
}

/** What is chosen of lists, as [column, value]. */
export const chosen = (state) => Object.entries(state.values).flatMap(([column, values]) => [...values].map((value) => [column, value]));

export const filterCount = (state) => chosen(state).length + Object.keys(state.ranges).length;

export const clearFilters = (state) => Object.assign(state, { values: none(), ranges: none() });

/** Whether words, a picture or an item say what is wanted. */
export const worded = (state) => Boolean(state.q.trim() || state.like || state.picture);

/** Whether there is something to search for, or to browse. */
export const asked = (state) => worded(state) || Boolean(filterCount(state) || state.sort);

export const quoted = (value) => `"${value.replace(/[\\"]/g, "\\$&")}"`;

/** The chosen filters in the service's language, null when there are none. */
export function toFilter(state) {
  const lists = Object.entries(state.values)
    .filter(([, values]) => values.size)
    .map(([column, values]) => `${quoted(column)} in (${[...values].map(quoted).join(", ")})`);
  const ranges = Object.entries(state.ranges).flatMap(([column, { low, high, below }]) => [
    low && `${quoted(column)}>=${quoted(low)}`,
    high && upTo(quoted(column), high, below),
  ]);
  return [...lists, ...ranges].filter(Boolean).join(" and ") || null;
}

/** A day that was typed is meant whole. */
const upTo = (column, high, below) =>
  below ? `${column}<${quoted(high)}` : isDate(high) ? `${column}<${quoted(nextDay(high))}` : `${column}<=${quoted(high)}`;
