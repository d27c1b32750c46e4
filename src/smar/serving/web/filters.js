// The filter panel and the chips of active filters.

import * as api from "./api.js";
import { byId, el, money, number } from "./dom.js";
import { LISTS, clearFilters, filterCount, toFilter } from "./state.js";

const SHOWN = 8;
const MOST_VALUES = 200;
const PRICES = { low: "price-low", high: "price-high" };

/** Fill the panel from the shop's facets and tell whether there is anything to filter by.
 * `changed` is called after the state was changed by hand. */
export function buildFilters(facets, state, changed) {
  for (const name of LISTS) buildList(name, facets[name], state, changed);
  const range = document.querySelector('[data-facet="price"]');
  range.hidden = !facets.price;
  for (const [name, id] of Object.entries(PRICES)) {
    const input = byId(id);
    if (facets.price) input.placeholder = money(facets.price[name]);
    input.addEventListener("input", () => {
      const value = input.valueAsNumber;
      state()[name] = Number.isFinite(value) && value >= 0 ? String(value) : "";
      changed(300);
    });
  }
  byId("filter-form").addEventListener("submit", (event) => event.preventDefault());
  return Boolean(facets.price) || LISTS.some((name) => facets[name].length > 0);
}

function buildList(name, values, state, changed) {
  const box = document.querySelector(`[data-facet="${name}"]`);
  box.hidden = values.length === 0;
  const rows = values.map(({ value, count }, at) => {
    const input = el("input", { type: "checkbox", value, name });
    input.addEventListener("change", () => {
      state()[name][input.checked ? "add" : "delete"](value);
      changed(0);
    });
    return el(
      "label",
      { className: "value", hidden: at >= SHOWN },
      input,
      el("span", { className: "name" }, value),
      el("span", { className: "count" }, number(count)),
    );
  });
  box.querySelector(".values").replaceChildren(...rows);
  if (rows.length <= SHOWN) return;
  const more = el("button", { type: "button", className: "link", "aria-expanded": "false" }, `All ${rows.length}`);
  more.addEventListener("click", () => {
    const open = more.getAttribute("aria-expanded") === "false";
    rows.forEach((row, at) => (row.hidden = !open && at >= SHOWN));
    more.setAttribute("aria-expanded", String(open));
    more.textContent = open ? "Fewer" : `All ${rows.length}`;
  });
  box.append(more);
}

let counted = 0;
let countedFor = null;

/** Counts beside the values: what each would leave, the other filters kept; the whole shop's when there are none. */
export async function countFilters(all, state) {
  const filters = JSON.stringify(LISTS.map((name) => toFilter(state, name)));
  if (filters === countedFor) return; // what is typed changes no count
  countedFor = filters;
  const mine = ++counted;
  for (const name of LISTS) {
    const filter = toFilter(state, name);
    let values = all[name];
    try {
      if (filter) values = (await api.facets(filter, MOST_VALUES))[name];
    } catch {
      countedFor = null;
      return; // the search itself tells what is wrong
    }
    if (mine !== counted) return; // a newer state is being counted
    const counts = new Map(values.map(({ value, count }) => [value, count]));
    const absent = values.length < MOST_VALUES ? "0" : "";
    for (const input of document.querySelectorAll(`#filter-form input[name="${name}"]`)) {
      const count = counts.get(input.value);
      input.closest("label").querySelector(".count").textContent = count === undefined ? absent : number(count);
    }
  }
}

let pictureAddress = null;

/** What is looked for instead of words: a picture or an item, with a way to forget it; null for neither. */
export function showSubject(subject, forget) {
  if (pictureAddress) URL.revokeObjectURL(pictureAddress);
  pictureAddress = subject?.picture instanceof Blob ? URL.createObjectURL(subject.picture) : null;
  byId("subject").hidden = !subject;
  if (!subject) return;
  const source = pictureAddress ?? subject.picture;
  const remove = el("button", { type: "button", className: "close", "aria-label": "Search by words again" }, "×");
  remove.addEventListener("click", forget);
  byId("subject").replaceChildren(
    ...(source ? [el("img", { src: source, alt: "", width: 44, height: 44 })] : []),
    el("span", {}, subject.name),
    remove,
  );
}

/** Make the panel and the chips show the state. */
export function showFilters(state, changed) {
  for (const input of document.querySelectorAll("#filter-form input[type=checkbox]")) {
    input.checked = state[input.name].has(input.value);
    if (input.checked) input.closest("label").hidden = false;
  }
  for (const [name, id] of Object.entries(PRICES)) {
    if (document.activeElement !== byId(id)) byId(id).value = state[name];
  }
  const count = filterCount(state);
  byId("filter-count").textContent = count ? `(${count})` : "";
  byId("chips").replaceChildren(...chips(state, changed));
}

function chips(state, changed) {
  const chip = (text, remove) => {
    const button = el("button", { type: "button", className: "chip", "aria-label": `Remove filter ${text}` }, text);
    button.append(el("span", { "aria-hidden": "true" }, "×"));
    button.addEventListener("click", () => {
      remove();
      changed(0);
    });
    return el("li", {}, button);
  };
  const list = LISTS.flatMap((name) => [...state[name]].map((value) => chip(value, () => state[name].delete(value))));
  if (state.low) list.push(chip(`from ${money(Number(state.low))}`, () => (state.low = "")));
  if (state.high) list.push(chip(`up to ${money(Number(state.high))}`, () => (state.high = "")));
  if (list.length > 1) {
    const all = el("button", { type: "button", className: "link" }, "Clear all");
    all.addEventListener("click", () => {
      clearFilters(state);
      changed(0);
    });
    list.push(el("li", {}, all));
  }
  return list;
}
