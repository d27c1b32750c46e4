// What is chosen, above the results: chips of filters, the picture or item that is looked for, and how the results are sorted.

import { byId, capital, el, label } from "./dom.js";
import { rangeText } from "./ranges.js";
import { SHORT, chosen, clearFilters, filterCount, setRange, valuesOf } from "./state.js";

/** Chips, each of which takes its filter away, and the number of filters on the button that opens them. */
export function showChips(state, changed) {
  const count = filterCount(state);
  byId("filter-count").textContent = count ? `(${count})` : "";
  byId("chips").replaceChildren(...chips(state, changed));
}

/** A chosen value in words. */
function chipText(column, value) {
  if (SHORT.includes(column)) return value;
  const name = capital(label(column));
  return value === "true" ? name : `${name}: ${value === "false" ? "no" : value}`;
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
  const list = chosen(state).map(([column, value]) => chip(chipText(column, value), () => valuesOf(state, column).delete(value)));
  for (const [column, range] of Object.entries(state.ranges))
    list.push(chip(`${capital(label(column))} ${rangeText(range)}`, () => setRange(state, column)));
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

const ORDERS = { number: ["low to high", "high to low"], date: ["oldest first", "newest first"], boolean: ["no first", "yes first"] };

/** Offer to sort by these columns. */
export function buildSorts({ sorts, kinds }, state, changed) {
  const options = sorts.map((name) => {
    const down = !(name in kinds);
    const column = down ? name.slice(1) : name;
    return el("option", { value: name }, `${capital(label(column))}: ${(ORDERS[kinds[column]] ?? ["A to Z", "Z to A"])[Number(down)]}`);
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
