// Ranges of numbers and dates in the filter panel: a histogram on its side whose lines are chosen, and two ends to type.

import { bound, date, dates, el, label, money, nextDay, number } from "./dom.js";
import { fieldset, row, showCount } from "./facets.js";
import { isDate, rangeOf, setRange } from "./state.js";

const ANY = " ";
const keyOf = ({ low, high }) => `${low ?? ""} ${high ?? ""}`;
const chosenKey = ({ low, high, below }) => (high && !below ? null : `${low} ${high}`);
const end = (text) => (isDate(text) ? date(text) : bound(Number(text)));

/** Bounds in words, empty without any. */
export function rangeText({ low, high, below }) {
  if (isDate(low) && high) return dates(low, below ? nextDay(high, -1) : high);
  const before = isDate(high) ? "before" : "below";
  if (low && below) return `${end(low)} to ${end(high)}`;
  if (low) return high ? `from ${end(low)} up to ${end(high)}` : `from ${end(low)}`;
  return high ? `${below ? before : "up to"} ${end(high)}` : "";
}

export function rangeField(column, kind, state, changed) {
  const timed = kind === "date";
  const values = el("div", { className: "values" });
  const [low, high] = (timed ? ["Earliest", "Latest"] : ["Lowest", "Highest"]).map((which) => endInput(which, column, timed));
  const typed = el("div", { className: timed ? "range dates" : "range" }, low.parentElement, el("span", { "aria-hidden": "true" }, "to"), high.parentElement);
  const box = fieldset(column, values, typed);
  let lines = new Map(); // key of a range -> its line

  for (const [input, which] of [[low, "low"], [high, "high"]]) {
    input.addEventListener("input", () => {
      const before = rangeOf(state(), column);
      const now = { ...before, [which]: input.value };
      setRange(state(), column, now.low, now.high, before.below && which === "low"); // a highest one that was typed is meant to be found
      changed(300, `${column} ${which}`);
    });
  }

  /** A choice of ranges; a single one, which holds everything, is none. */
  function build(ranges) {
    const keys = ranges.map(keyOf);
    if (keys.every((key) => lines.has(key)) && lines.size === (keys.length && keys.length + 1)) return;
    const shown = timed ? keys.toReversed() : keys; // the newest first
    lines = new Map((keys.length ? [ANY, ...shown] : []).map((key) => [key, line(key)]));
    values.replaceChildren(...lines.values());
  }

  function line(key) {
    const [from, to] = key.split(" ");
    const made = row("radio", column, key, rangeText({ low: from, high: to, below: to !== "" }) || (timed ? "any time" : `any ${label(column)}`));
    made.append(el("i", { className: "bar", "aria-hidden": "true" }));
    made.firstElementChild.addEventListener("change", () => {
      setRange(state(), column, from, to, to !== "");
      changed(0);
    });
    return made;
  }

  return {
    column,
    box,
    draw(facet, now) {
      if (!facet) return [...lines.values()].forEach((each) => showBar(each, undefined, 1));
      build(facet.ranges ?? []);
      const counts = new Map((facet.ranges ?? []).map((range) => [keyOf(range), range.count]));
      const most = Math.max(1, ...counts.values());
      for (const [key, each] of lines) showBar(each, counts.get(key), most);
      const known = facet.low !== null;
      if (known && !timed) [low.placeholder, high.placeholder] = [facet.low, facet.high].map(column === "price" ? money : number);
      if (known && timed) [low.min, high.max] = [facet.low, facet.high].map((text) => text.slice(0, 10));
      box.hidden = !known && !now.ranges[column];
      this.show(now);
    },
    show(now) {
      const range = rangeOf(now, column);
      for (const [key, each] of lines) each.firstElementChild.checked = key === chosenKey(range);
      if (document.activeElement !== low) low.value = range.low.slice(0, timed ? 10 : undefined);
      if (document.activeElement !== high) high.value = range.high.slice(0, timed ? 10 : undefined);
    },
  };
}

function endInput(which, column, timed) {
  const kind = timed ? { type: "date" } : { type: "number", step: "any", inputMode: "decimal" };
  const input = el("input", column === "price" ? { ...kind, min: "0" } : kind);
  el("label", {}, el("span", { className: "hidden" }, `${which} ${label(column)}`), input);
  return input;
}

function showBar(line, count, most) {
  showCount(line, count);
  line.lastElementChild.style.setProperty("--share", (count ?? 0) / most);
}
