// What is searched for. The address bar carries it, so a search can be shared, reloaded and gone back to.

export const FIRST = 48;
export const COMPARED = 24;
export const MOST = 192;
export const LISTS = ["category", "brand"];

export const empty = () => ({
  q: "",
  like: "", // id of the item whose like is looked for
  picture: null, // a File; it is not in the address
  mode: "adaptive",
  compare: false,
  k: FIRST,
  category: new Set(),
  brand: new Set(),
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
  if (state.low) address.set("low", state.low);
  if (state.high) address.set(state.below ? "below" : "high", state.high);
  const text = address.toString();
  return text ? `/?${text}` : "/";
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
  return terms.join(" and ") || null;
}

export const filterCount = (state) => state.category.size + state.brand.size + Boolean(state.low || state.high);

export function clearFilters(state) {
  for (const name of LISTS) state[name].clear();
  setPrice(state, "", "", false);
}
