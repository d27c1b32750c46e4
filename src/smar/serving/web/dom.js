// Small helpers that the other modules share. Text is only ever set as text, so no item can inject markup.

export const byId = (id) => document.getElementById(id);

/** Create an element: properties as given, `data-` and `aria-` keys as attributes, children as nodes or text. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name in node && !name.includes("-")) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

/** An icon from a list of SVG path data. */
export function icon(className, ...paths) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", className);
  svg.setAttribute("aria-hidden", "true");
  for (const data of paths) {
    const path = document.createElementNS(space, "path");
    path.setAttribute("d", data);
    svg.append(path);
  }
  return svg;
}

export const percent = (share) => `${Math.round(share * 100)}\u00a0%`;
export const number = (value) => value.toLocaleString("en");
export const money = (value) => value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
/** A bound of prices: a round one without decimals, a tiny one with those that it has. */
export const bound = (value) =>
  Number.isInteger(value) ? number(value) : value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 6 });
export const plural = (count, one, many) => `${number(count)} ${count === 1 ? one : many}`;

/** A column's name in words. */
export const label = (name) => name.replaceAll("_", " ");
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

const day = { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" };
const days = new Intl.DateTimeFormat("en-GB", day);
export const date = (text) => days.format(new Date(text.slice(0, 10)));
/** "7 – 18 Sept 2026", both included. */
export const dates = (from, to) => days.formatRange(new Date(from.slice(0, 10)), new Date(to.slice(0, 10)));
export const nextDay = (text, many = 1) => new Date(Date.parse(text.slice(0, 10)) + many * 86_400_000).toISOString().slice(0, 10);
