// The filter panel: for each column that the shop offers a list of values, ranges, or a switch, with counts of this search.

import { byId, capital, date, el, label, number, plural } from "./dom.js";
import { rangeField } from "./ranges.js";
import { valuesOf } from "./state.js";

const SHOWN = 8; // values before "more"
let fields = [];

/** Fill the panel with fields for the offered columns. `changed` is called after the state was changed by hand. */
export function buildPanel({ facets, kinds }, state, changed) {
  const make = { number: rangeField, date: rangeField, boolean: switchField };
  fields = facets.map((column) => (make[kinds[column]] ?? listField)(column, kinds[column], state, changed));
  byId("fields").replaceChildren(...fields.map((field) => field.box));
  byId("no-filters").textContent = fields.length ? "" : "Nothing to filter by.";
  byId("filter-form").addEventListener("submit", (event) => event.preventDefault());
}

/** Make the panel show the counts of an answer; without any the values stay, and no count is told. */
export function drawPanel(facets, state) {
  const focused = document.activeElement;
  for (const field of fields) field.draw(facets?.[field.column] ?? null, state);
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  const nothing = fields.every((field) => field.box.hidden);
  if (facets) byId("no-filters").textContent = nothing ? "Nothing to filter by." : "";
}

/** Make the panel show what is chosen. */
export function showPanel(state) {
  for (const field of fields) field.show(state);
}

/** One line of the panel: a checkbox or radio, its name, and how many products it leaves. */
export function row(type, group, value, name) {
  const input = el("input", { type, value, name: group });
  return el("label", { className: "value" }, input, el("span", { className: "name", dir: "auto" }, name), el("span", { className: "count" }));
}

export function showCount(line, count) {
  const [input, name, figure] = line.children;
  figure.textContent = count === undefined ? "" : number(count);
  // "20 to 50, 7 products" instead of "20 to 50 7"
  if (count === undefined) input.removeAttribute("aria-label");
  else input.setAttribute("aria-label", `${name.textContent}, ${plural(count, "product", "products")}`);
}

export const fieldset = (column, ...children) =>
  el("fieldset", { "data-facet": column, hidden: true }, el("legend", {}, capital(label(column))), ...children);

/** Values of texts and lists, the most frequent first; what is chosen stays, even with a count of 0. */
function listField(column, _, state, changed) {
  const rows = new Map(); // value -> its line, kept, so that what the keyboard is on stays
  const values = el("div", { className: "values" });
  const find = el("input", { type: "search", className: "find", placeholder: "Find", "aria-label": `Find in ${label(column)}`, hidden: true });
  const more = el("button", { type: "button", className: "link", "aria-expanded": "false", hidden: true });
  const none = el("p", { className: "quiet", "aria-live": "polite" });
  const box = fieldset(column, find, values, none, more);
  let open = false;

  function line(value) {
    if (!rows.has(value)) {
      const made = row("checkbox", column, value, value);
      made.firstElementChild.addEventListener("change", (event) => {
        valuesOf(state(), column)[event.target.checked ? "add" : "delete"](value);
        changed(0);
      });
      rows.set(value, made);
    }
    return rows.get(value);
  }

  function fold() {
    const wanted = find.value.trim().toLowerCase();
    const lines = [...values.children];
    lines.forEach((each, at) => {
      const found = each.children[1].textContent.toLowerCase().includes(wanted);
      each.hidden = wanted ? !found : !open && at >= SHOWN && !each.firstElementChild.checked;
    });
    values.classList.toggle("long", open || Boolean(wanted));
    none.textContent = wanted && lines.every((each) => each.hidden) ? "None of these." : "";
    const rest = lines.length - SHOWN;
    find.hidden = rest <= 0 || !(open || wanted);
    more.hidden = rest <= 0 || Boolean(wanted);
    more.setAttribute("aria-expanded", String(open));
    more.textContent = open ? "Fewer" : `${number(rest)} more`;
  }

  find.addEventListener("input", fold);
  more.addEventListener("click", () => {
    open = !open;
    fold();
  });
  return {
    column,
    box,
    draw(facet, now) {
      if (!facet) return [...values.children].forEach((each) => showCount(each, undefined));
      const counts = new Map((facet.values ?? []).map(({ value, count }) => [value, count]));
      for (const value of valuesOf(now, column)) if (!counts.has(value)) counts.set(value, 0);
      const lines = [...counts].map(([value, count]) => {
        showCount(line(value), count);
        return line(value);
      });
      if (lines.length !== values.children.length || lines.some((each, at) => each !== values.children[at])) values.replaceChildren(...lines);
      box.hidden = !lines.length;
      this.show(now);
    },
    show(now) {
      for (const [value, each] of rows) each.firstElementChild.checked = valuesOf(now, column).has(value);
      fold();
    },
  };
}

/** A column of true and false: on leaves those where it is true. */
function switchField(column, _, state, changed) {
  const input = el("input", { type: "checkbox", role: "switch", name: column });
  const line = el("label", { className: "switch" }, input, el("span", { className: "name" }, capital(label(column))), el("span", { className: "count" }), el("i", { "aria-hidden": "true" }));
  const box = el("div", { className: "flag", "data-facet": column, hidden: true }, line);
  input.addEventListener("change", () => {
    valuesOf(state(), column).clear();
    if (input.checked) valuesOf(state(), column).add("true");
    changed(0);
  });
  return {
    column,
    box,
    draw(facet, now) {
      showCount(line, facet ? (facet.values ?? []).find(({ value }) => value === "true")?.count ?? 0 : undefined);
      box.hidden = facet ? !facet.values?.length && !valuesOf(now, column).size : box.hidden;
      this.show(now);
    },
    show: (now) => (input.checked = valuesOf(now, column).has("true")),
  };
}
