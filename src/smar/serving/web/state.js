// What is searched for. The address bar carries it, so a search can be shared, reloaded and gone back to.

export const COMPARED = 24;
export const LISTS = ["category", "brand"];

export const empty = () => ({
  q: "",
  like: "", // id of the item whose like is looked for
  picture: null, // a File; it is not in the address
  mode: "adaptive",
  compare: false,
  category: new Set(),
  brand: new Set(),
  further: {}, // of the shop's other columns: "f.size" -> values, "r.weight" -> ranges "low..high"
  sort: "",
  low: "",
  high: "",
  below: false, // whether `high` itself is left out, as in the price ranges that the service counts
});

export function fromAddress() {
  const address = new URLSearchParams(location.search);
  const state = empty();
  state.q = (address.get("q") ?? "").slice(0, 1000);
  state.like = address.get("like") ?? "";
  if (["text", "multimodal", "hybrid"].includes(address.get("mode"))) state.mode = address.get("mode");
  state.compare = address.get("compare") === "1";
  for (const name of LISTS) state[name] = new Set(address.getAll(name));
  for (const name of address.keys()) if (/^[fr]\../.test(name)) state.further[name] = new Set(address.getAll(name));
  state.sort = address.get("sort") ?? "";
  setPrice(state, address.get("low"), address.get("below") ?? address.get("high"), address.has("below"));
  return state;
}

/** Bounds as text or numbers; what is no number sets none. */
export function setPrice(state, low, high, below) {
  const plain = (value) => (String(value ?? "").trim() && Number.isFinite(Number(value)) ? String(Number(value)) : "");
  Object.assign(state, { low: plain(low), high: plain(high) });
  state.below = below && state.high !== "";
}

export function toAddress(state) {
  const address = new URLSearchParams();
  if (state.q) address.set("q", state.q);
  if (state.like) address.set("like", state.like);
  if (state.mode !== "adaptive") address.set("mode", state.mode);
  if (state.compare) address.set("compare", "1");
  for (const name of LISTS) for (const value of state[name]) address.append(name, value);
  for (const [name, values] of Object.entries(state.further)) for (const value of values) address.append(name, value);
  if (state.sort) address.set("sort", state.sort);
  if (state.low) address.set("low", state.low);
  if (state.high) address.set(state.below ? "below" : "high", state.high);
  const text = address.toString();
  return text ? `${location.pathname}?${text}` : location.pathname; // which may be behind a proxy's prefix
}

const quoted = (value) => `"${value.replace(/[\\"]/g, "\\$&")}"`;

/** Whether there is something to search for. */
export const asked = (state) => Boolean(state.q.trim() || state.like || state.picture);

/** The chosen filters in the service's language, null when there are none; `without` leaves a list or "price" out. */
export function toFilter(state, without = null) {
  const terms = LISTS.filter((name) => name !== without && state[name].size).map(
    (name) => `${name} in (${[...state[name]].map(quoted).join(", ")})`,
  );
  if (state.low && without !== "price") terms.push(`price>=${state.low}`);
  if (state.high && without !== "price") terms.push(`price${state.below ? "<" : "<="}${state.high}`);
  for (const [name, values] of Object.entries(state.further)) if (values.size && name !== without) terms.push(term(name, [...values]));
  return terms.join(" and ") || null;
}

/** Some chosen values or ranges of a column, any of which will do. */
function term(name, values) {
  const column = quoted(name.slice(2));
  if (name.startsWith("f.")) return `${column} in (${values.map(quoted).join(", ")})`;
  const ranges = values.map((range) => {
    const [low, high] = range.split("..");
    return [low && `${column}>=${quoted(low)}`, high && `${column}<${quoted(high)}`].filter(Boolean).join(" and ");
  });
  return `(${ranges.filter(Boolean).join(" or ")})`;
}

export const filterCount = (state) =>
  state.category.size + state.brand.size + Boolean(state.low || state.high) + chosenFurther(state).length;

/** What is chosen of the shop's other columns, as [name, value]. */
export const chosenFurther = (state) =>
  Object.entries(state.further).flatMap(([name, values]) => [...values].map((value) => [name, value]));

export function clearFilters(state) {
  for (const name of LISTS) state[name].clear();
  state.further = {};
  setPrice(state, "", "", false);
}
