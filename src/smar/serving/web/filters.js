// The filter panel and the chips of active filters.

import { byId, el, money, number } from "./dom.js";
import { LISTS, clearFilters, filterCount } from "./state.js";

const SHOWN = 8;
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
