// Suggestions under the search box: a listbox that the box controls (ARIA combobox with manual choice).

import { suggest } from "./api.js";
import { byId, el, number } from "./dom.js";

const PAUSE = 60; // ms of typing before it is asked

let running = new AbortController();
let timer = 0;

/** Offer what goes on from what is typed; `choose` is told a query, or a column and one of its values. */
export function watchSuggestions(choose) {
  const box = byId("query");
  const list = el("ul", { id: "suggestions", className: "suggestions", role: "listbox", "aria-label": "Suggestions" });
  list.hidden = true;
  byId("search").append(list);
  for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id }))
    box.setAttribute(name, value);

  const options = () => [...list.children];
  const marked = () => options().find((option) => option.getAttribute("aria-selected") === "true");

  function mark(option) {
    for (const each of options()) each.setAttribute("aria-selected", String(each === option));
    if (option) box.setAttribute("aria-activedescendant", option.id);
    else box.removeAttribute("aria-activedescendant");
  }

  function close() {
    clearTimeout(timer);
    running.abort();
    list.hidden = true;
    box.setAttribute("aria-expanded", "false");
    mark(null);
  }

  function take(option) {
    close();
    choose(option.suggestion);
  }

  function show({ queries, values }) {
    const rows = [...queries.flatMap(rowsOf), ...values.map((value) => ({ ...value, note: `${value.column}, ${number(value.count)}` }))];
    const row = (suggestion, at) =>
      Object.assign(
        el("li", { id: `suggestion-${at}`, role: "option", "aria-selected": "false" }, el("span", { dir: "auto" }, suggestion.text), " ", suggestion.note && el("small", {}, suggestion.note)),
        { suggestion },
      );
    list.replaceChildren(...rows.map(row));
    list.hidden = !rows.length;
    box.setAttribute("aria-expanded", String(rows.length > 0));
    mark(null);
  }

  async function ask() {
    running.abort();
    const mine = (running = new AbortController());
    const typed = box.value;
    try {
      const found = await suggest(typed, mine.signal);
      if (mine === running && box.value === typed && document.activeElement === box) show(found);
    } catch {
      if (mine === running) close(); // searching works without suggestions
    }
  }

  box.addEventListener("input", (event) => {
    clearTimeout(timer);
    if (event.isComposing) return;
    if (box.value.trim()) timer = setTimeout(ask, PAUSE);
    else close();
  });
  box.addEventListener("keydown", (event) => {
    if (list.hidden || event.isComposing) return;
    const all = options();
    const at = all.indexOf(marked());
    if (event.key === "Escape") close();
    else if (event.key === "Enter" && at >= 0) take(all[at]);
    else if (event.key === "ArrowDown") mark(all[at + 1]);
    else if (event.key === "ArrowUp") mark(at < 0 ? all.at(-1) : all[at - 1]);
    else return;
    event.preventDefault();
  });
  box.addEventListener("blur", close);
  byId("search").addEventListener("submit", close);
  list.addEventListener("pointerdown", (event) => event.preventDefault()); // the box keeps the keyboard
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) take(option);
  });
}

/** A query, and with it the filter that goes with it most. */
function rowsOf(query) {
  const best = query.filters.toSorted((one, other) => other.share - one.share)[0];
  return [{ text: query.text }, ...(best ? [{ text: query.text, note: `in ${best.value}`, filter: best }] : [])];
}
