// The shop's own columns in the filter panel, beside category, brand and price; and how the results are sorted.

import * as api from "./api.js";
import { bound, byId, el } from "./dom.js";
import { row, showCount } from "./filters.js";
import { toFilter } from "./state.js";

const SHOWN = 8;
let columns = [];

export const label = (name) => name.replaceAll("_", " ");
/** A value in words. */
export const valueText = (value) => ({ true: "yes", false: "no" })[value] ?? value;
const keyOf = ({ low, high }) => `${low ?? ""}..${high ?? ""}`;

/** A range in words; its ends are numbers or dates. */
export function rangeText(range) {
  const [low, high] = range.split("..").map((end) => (/^-?[\d.]+(e[-+]?\d+)?$/.test(end) ? bound(Number(end)) : end));
  return low && high ? `${low} to ${high}` : low ? `from ${low}` : `below ${high}`;
}

/** Values of a facet, or else its ranges: [name in the state, value, text, count]. */
const choices = (column, facet) =>
  facet.values
    ? facet.values.map(({ value, count }) => [`f.${column}`, value, valueText(value), count])
    : (facet.ranges ?? []).map((range) => [`r.${column}`, keyOf(range), rangeText(keyOf(range)), range.count]);

/** Fill the panel with what the whole shop has in `names`. */
export async function buildFurther(names, state, changed) {
  columns = names;
  if (!columns.length) return;
  const facets = await api.counts(columns, null);
  const boxes = Object.entries(facets).map(([column, facet]) => {
    const lines = choices(column, facet).map(([name, value, text, count], at) => {
      const line = row("checkbox", name, value, text, at >= SHOWN);
      line.firstElementChild.addEventListener("change", (event) => {
        const chosen = (state().further[name] ??= new Set());
        chosen[event.target.checked ? "add" : "delete"](value);
        changed(0);
      });
      showCount(line, count);
      return line;
    });
    const more = lines.length > SHOWN && el("button", { type: "button", className: "link" }, `${lines.length - SHOWN} more`);
    if (more) {
      more.addEventListener("click", () => {
        for (const line of lines) line.hidden = false;
        lines[SHOWN].firstElementChild.focus();
        more.remove();
      });
    }
    return el("fieldset", { "data-facet": column, hidden: !lines.length }, el("legend", {}, label(column)), el("div", { className: "values" }, ...lines), more || "");
  });
  byId("filter-form").append(...boxes);
}

let counting = new AbortController();
let countedFor = null;

/** Counts beside the values, the other filters kept. */
export async function countFurther(state) {
  const filter = toFilter(state);
  if (!columns.length || filter === countedFor) return;
  countedFor = filter;
  counting.abort();
  const { signal } = (counting = new AbortController());
  const facets = await api.counts(columns, filter, signal).catch(() => null);
  if (signal.aborted) return;
  if (!facets) countedFor = undefined;
  for (const column of columns) {
    const found = new Map(facets ? choices(column, facets[column]).map(([name, value, , count]) => [name + value, count]) : []);
    for (const input of document.querySelectorAll(`[data-facet="${CSS.escape(column)}"] input`)) {
      showCount(input.parentElement, facets ? found.get(input.name + input.value) ?? 0 : undefined);
    }
  }
}

/** Make the panel show what is chosen. */
export function showFurther(state) {
  for (const input of document.querySelectorAll("#filter-form input")) {
    if (!/^[fr]\./.test(input.name)) continue;
    input.checked = Boolean(state.further[input.name]?.has(input.value));
    if (input.checked) input.closest("label").hidden = false;
  }
}

/** Offer to sort by these columns. */
export function buildSorts(sorts, state, changed) {
  const options = sorts.map((name) => {
    const down = name.startsWith("-");
    return el("option", { value: name }, `${label(down ? name.slice(1) : name)}, ${down ? "descending" : "ascending"}`);
  });
  byId("sort").append(...options);
  byId("sort").addEventListener("change", (event) => {
    state().sort = event.target.value;
    changed(0);
  });
}

export function showSort(state) {
  const select = byId("sort");
  byId("sort-box").hidden = select.options.length < 2 || Boolean(state.like || state.picture) || state.compare;
  select.value = state.sort;
  if (select.selectedIndex < 0) select.value = "";
}
