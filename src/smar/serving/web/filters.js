// The filter panel and the chips of active filters.

import * as api from "./api.js";
import { bound, byId, el, money, number, plural } from "./dom.js";
import { label, rangeText, valueText } from "./further.js";
import { LISTS, chosenFurther, clearFilters, filterCount, setPrice, toFilter } from "./state.js";

const SHOWN = 8;
const MOST_VALUES = 200;
const PRICES = { low: "price-low", high: "price-high" };
const ANY_PRICE = " ";

/** Fill the panel from the shop's facets and tell whether there is anything to filter by.
 * `changed` is called after the state was changed by hand. */
export function buildFilters(facets, state, changed) {
  for (const name of LISTS) buildList(name, facets[name], state, changed);
  document.querySelector('[data-facet="price"]').hidden = !facets.price;
  buildRanges(facets.prices, state, changed);
  for (const [name, id] of Object.entries(PRICES)) {
    const input = byId(id);
    if (facets.price) input.placeholder = money(facets.price[name]);
    input.addEventListener("input", () => {
      const value = input.valueAsNumber;
      const { low, high, below } = { ...state(), [name]: value >= 0 ? value : "" };
      setPrice(state(), low, high, below && name !== "high"); // a highest price that was typed is meant to be found
      changed(300, name);
    });
  }
  byId("filter-form").addEventListener("submit", (event) => event.preventDefault());
  return Boolean(facets.price) || LISTS.some((name) => facets[name].length > 0);
}

/** One line of the panel: a checkbox or radio, its name, and how many products it leaves. */
export function row(type, group, value, name, hidden = false) {
  const input = el("input", { type, value, name: group });
  const label = el("span", { className: "name", dir: "auto" }, name);
  return el("label", { className: "value", hidden }, input, label, el("span", { className: "count" }));
}

export function showCount(line, count) {
  const [input, name, figure] = line.children;
  figure.textContent = count === undefined ? "" : number(count);
  // "20 to 50, 7 products" instead of "20 to 50 7"
  if (count === undefined) input.removeAttribute("aria-label");
  else input.setAttribute("aria-label", `${name.textContent}, ${plural(count, "product", "products")}`);
}

function buildList(name, values, state, changed) {
  const box = document.querySelector(`[data-facet="${name}"]`);
  box.hidden = values.length === 0;
  const rows = values.map(({ value, count }, at) => {
    const line = row("checkbox", name, value, value, at >= SHOWN);
    line.firstElementChild.addEventListener("change", (event) => {
      state()[name][event.target.checked ? "add" : "delete"](value);
      changed(0);
    });
    showCount(line, count);
    return line;
  });
  box.querySelector(".values").replaceChildren(...rows);
  if (rows.length <= SHOWN) return;
  const closed = `${rows.length - SHOWN} more`;
  const more = el("button", { type: "button", className: "link", "aria-expanded": "false" }, closed);
  more.addEventListener("click", () => {
    const open = more.getAttribute("aria-expanded") === "false";
    rows.forEach((line, at) => (line.hidden = !open && at >= SHOWN && !line.firstElementChild.checked));
    more.setAttribute("aria-expanded", String(open));
    more.textContent = open ? "Fewer" : closed;
  });
  box.append(more);
}

/** The bounds of a counted range as a radio's value; the outermost ranges are open, as nothing lies beyond them. */
const rangeOf = ({ low, high }, at, all) => `${at ? low : ""} ${at < all.length - 1 ? high : ""}`;

const chosenRange = ({ low, high, below }) => (high && !below ? null : `${low} ${high}`);

/** A choice of price ranges; a single range, which holds everything, is none. */
function buildRanges(prices, state, changed) {
  const ranges = prices.length > 1 ? [ANY_PRICE, ...prices.map(rangeOf)] : [];
  const rows = ranges.map((range, at) => {
    const [low, high] = range.split(" ");
    const bounds = { low, high, below: high !== "" };
    const line = row("radio", "price", range, priceText(bounds) || "any price");
    line.firstElementChild.addEventListener("change", () => {
      setPrice(state(), low, high, bounds.below);
      changed(0);
    });
    showCount(line, prices[at - 1]?.count);
    return line;
  });
  document.querySelector('[data-facet="price"] .values').replaceChildren(...rows);
}

/** The price's bounds in words, empty without any. */
function priceText({ low, high, below }) {
  const [from, to] = [low, high].map((text) => bound(Number(text)));
  if (low && below) return `${from} to ${to}`;
  if (low) return high ? `from ${from} up to ${to}` : `from ${from}`;
  return high ? `${below ? "below" : "up to"} ${to}` : "";
}

let counting = new AbortController();
let countedFor = null;

/** Counts beside the values: what each would leave, the other filters kept; the whole shop's when there are none. */
export async function countFilters(all, state) {
  const filters = Object.fromEntries([...LISTS, "price"].map((name) => [name, toFilter(state, name)]));
  const wanted = JSON.stringify(filters);
  if (wanted === countedFor) return; // what is typed changes no count
  countedFor = wanted;
  counting.abort();
  const { signal } = (counting = new AbortController());
  const ask = async (filter) => [filter, filter ? await api.facets(filter, MOST_VALUES, signal).catch(() => null) : all];
  const answers = new Map(await Promise.all([...new Set(Object.values(filters))].map(ask)));
  if (signal.aborted) return; // a newer state is being counted
  if ([...answers.values()].includes(null)) countedFor = null; // the search itself tells what is wrong
  for (const [name, filter] of Object.entries(filters)) {
    const count = counter(answers.get(filter), name);
    for (const input of document.querySelectorAll(`#filter-form input[name="${name}"]`)) {
      showCount(input.parentElement, count(input.value));
    }
  }
}

/** A function from a value of the panel to its count, undefined where the answer, if any, does not tell. */
function counter(answer, name) {
  if (!answer) return () => undefined;
  if (name === "price") {
    const counts = new Map(answer.prices.map((part, at, all) => [rangeOf(part, at, all), part.count]));
    return (range) => counts.get(range);
  }
  const counts = new Map(answer[name].map(({ value, count }) => [value, count]));
  const absent = answer[name].length < MOST_VALUES ? 0 : undefined;
  return (value) => counts.get(value) ?? absent;
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
    if (!LISTS.includes(input.name)) continue;
    input.checked = state[input.name].has(input.value);
    if (input.checked) input.closest("label").hidden = false;
  }
  for (const input of document.querySelectorAll("#filter-form input[type=radio]")) {
    input.checked = input.value === chosenRange(state);
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
    const button = el("button", { type: "button", className: "chip", "aria-label": `Remove filter ${text}` });
    button.append(el("bdi", {}, text), el("span", { "aria-hidden": "true" }, "×"));
    button.addEventListener("click", () => {
      remove();
      changed(0);
    });
    return el("li", {}, button);
  };
  const list = LISTS.flatMap((name) => [...state[name]].map((value) => chip(value, () => state[name].delete(value))));
  const price = priceText(state);
  if (price) list.push(chip(`Price ${price}`, () => setPrice(state, "", "", false)));
  for (const [name, value] of chosenFurther(state)) {
    const text = name.startsWith("f.") ? valueText(value) : rangeText(value);
    list.push(chip(`${label(name.slice(2))}: ${text}`, () => state.further[name].delete(value)));
  }
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
