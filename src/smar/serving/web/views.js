// What the main area shows: start page, results, side-by-side comparison, nothing found, failure.

import { card, pictureTile } from "./cards.js";
import { byId, el, number, percent, plural } from "./dom.js";
import { PAGE, growingList } from "./paging.js";

const show = (...nodes) => byId("view").replaceChildren(...nodes);
const showUnder = (heading, ...nodes) => show(el("h1", { className: "hidden" }, heading), ...nodes);

/** The line above the results, which screen readers are told of. */
export const say = (text) => (byId("status").textContent = text);

const button = (text, action, className = "primary") => {
  const node = el("button", { type: "button", className }, text);
  node.addEventListener("click", action);
  return node;
};

/** Start page: what this is, and searches to begin with. */
export function showStart(facets, pick) {
  say("");
  byId("gate").hidden = true;
  const tiles = (facets?.category ?? []).slice(0, 12).map(({ value, count, picture }, at) => {
    const node = el(
      "button",
      { type: "button", className: "card example" },
      pictureTile(picture, at < 6),
      el("span", { className: "title", dir: "auto" }, value),
      el("span", { className: "facts" }, plural(count, "product", "products")),
    );
    node.addEventListener("click", () => pick(value.toLowerCase()));
    return el("li", {}, node);
  });
  show(
    el(
      "section",
      { className: "start" },
      el("h1", {}, "Say what it looks like."),
      el(
        "p",
        {},
        "This search reads each product’s words and looks at its picture, and decides for every query how much the pictures should count.",
      ),
      facets && el("p", { className: "quiet" }, `${plural(facets.items, "product", "products")}, ${number(facets.pictures)} with a picture.`),
    ),
    tiles.length ? el("h2", { className: "hidden" }, "Searches to begin with") : "",
    el("ul", { className: "grid examples" }, ...tiles),
  );
}

/** Grey cards for the first search; later ones dim the old results instead. */
export function showLoading(gated) {
  byId("view").setAttribute("aria-busy", "true");
  if (byId("view").querySelector(".results")) return;
  say("Searching…");
  byId("gate-value").textContent = byId("gate-why").textContent = "\u00a0"; // keeps the header's height
  byId("gate").hidden = !gated;
  const bones = Array.from({ length: 12 }, () => el("li", { className: "bone" }, el("span", { className: "tile" }), el("i"), el("i")));
  show(el("ul", { className: "grid bones", "aria-hidden": "true" }, ...bones));
}

/** The gate's meter and its one-line meaning. */
export function showGate(answer, mode) {
  byId("gate").hidden = !answer;
  if (!answer) return; // searched by a picture or an item: nothing to decide
  const { image_probability: probability, routed } = answer;
  const share = percent(probability);
  const meter = byId("meter");
  meter.setAttribute("aria-valuenow", String(Math.round(probability * 100)));
  meter.firstElementChild.style.width = `${probability * 100}%`;
  byId("gate-value").textContent = share;
  byId("gate-why").textContent = {
    text: "Switched off: results are ranked by words alone.",
    multimodal: "Overruled: words and pictures together rank every result.",
    hybrid: `Fused with a search by the words as they stand; pictures count ${share}.`,
    adaptive: routed
      ? "Looks matter for this query, so pictures lead the ranking."
      : "Words decide this query, so pictures only assist.",
  }[mode];
}

/** How many are shown; of how many, where that is known and means something: without a filter or a cut-off all are ranked. */
function scope(shown, { total, query, cutoff }, filtered) {
  const exact = total.relation === "exact";
  if (exact && shown >= total.value) return plural(shown, "product", "products");
  const best = query ? `Best ${number(shown)}` : number(shown);
  return `${best}${(filtered || cutoff || !query) && exact ? ` of ${number(total.value)}` : ""}${query ? "" : " products"}`;
}

/** What is said of a query whose hits have little to do with it. */
const warning = (answer) => (answer.unknown > 0.5 ? `. ${percent(answer.unknown)} of it is unknown here, so these may not fit` : "");

/** What was searched for in place of words that no product holds. */
const reading = (answer) =>
  Object.entries(answer.corrected ?? {}) // a search by picture reads no words
    .map(([word, found]) => `, searched for ${found.map((one) => `“${one}”`).join(" or ")} instead of “${word}”`)
    .join("");

/** The grid of one search, which grows by what `ask` brings. */
export function showResults(answer, ask, filtered, collapse) {
  const context = { mode: answer.mode, probability: answer.image_probability, collapse };
  const draw = (hit) => {
    const page = PAGE * Math.ceil(hit.rank / PAGE);
    const found = answer.query && ["adaptive", "multimodal"].includes(answer.mode) && (hit.rank_text === null || hit.rank_text > page);
    return card(hit, { eager: hit.rank <= 6, context, mark: found ? { kind: "new", text: "found by picture" } : null });
  };
  const subject = { picture: "for your picture", similar: `like “${answer.query}”` }[answer.mode];
  const whom = subject ?? (answer.query ? `for “${answer.query}”` : "");
  const told = (shown, found) =>
    say(`${scope(shown, { ...answer, total: found.total }, filtered)} ${whom}${reading(answer)}${warning(answer)}`.trim());
  showUnder("Results", ...growingList(answer, draw, ask, told));
}

/** Nothing is good enough, by the answer's own cut-off; what comes nearest. */
export function showNear(answer, collapse) {
  say(`No exact match for “${answer.query}”${reading(answer)}. Similar:`);
  const context = { mode: answer.mode, probability: answer.image_probability, collapse };
  const cards = answer.near.map((hit, at) => card(hit, { eager: at < 6, context }));
  showUnder("Similar products", el("ul", { className: "grid results" }, ...cards));
}

/** Where the shop's rules send who searches for this; the shopper decides. */
export function showRedirect(address) {
  const link = address && new URL(address, location.href);
  byId("redirect").hidden = !link || !/^https?:$/.test(link.protocol);
  if (!byId("redirect").hidden) byId("redirect").replaceChildren("Looking for this? ", el("a", { href: link.href }, link.host === location.host ? link.pathname : link.host + link.pathname));
}

function compareMark(hit, before, k) {
  const old = before.get(hit.item_id);
  if (old === undefined) return { kind: "new", text: "new" };
  if (old > hit.rank) return { kind: "up", text: `↑ ${old - hit.rank}` };
  return null;
}

function column(name, note, answer, marked, context) {
  const cards = answer.hits.map((hit, at) => card(hit, { eager: at < 3, context, mark: marked(hit) }));
  return el("section", { className: "column" }, el("h2", {}, name, " ", el("small", {}, note)), el("ol", { className: "grid small" }, ...cards));
}

/** Words only and with pictures, side by side; what the pictures brought in, moved up and pushed out is marked. */
export function showComparison(words, pictures, k) {
  const before = new Map(words.hits.map((hit) => [hit.item_id, hit.rank]));
  const after = new Map(pictures.hits.map((hit) => [hit.item_id, hit.rank]));
  const marks = new Map(pictures.hits.map((hit) => [hit.item_id, compareMark(hit, before, k)]));
  const count = (kind) => [...marks.values()].filter((mark) => mark?.kind === kind).length;
  const dropped = words.hits.filter((hit) => !after.has(hit.item_id));
  const context = { probability: pictures.image_probability };
  say(
    `Pictures brought in ${number(count("new"))}, moved up ${number(count("up"))} and pushed out ${number(dropped.length)} of the best ${number(Math.max(words.hits.length, pictures.hits.length))} for “${pictures.query}”${reading(pictures)}${warning(pictures)}`,
  );
  const out = (hit) => (after.has(hit.item_id) ? null : { kind: "out", text: "drops out" });
  showUnder(
    "Results without and with pictures",
    el(
      "div",
      { className: "results compare" },
      column("Words only", "pictures switched off", words, out, { ...context, mode: "text" }),
      column(
        "With pictures",
        { adaptive: `adaptive, ${percent(pictures.image_probability)}`, multimodal: "always", hybrid: "hybrid" }[pictures.mode],
        pictures,
        (hit) => marks.get(hit.item_id),
        { ...context, mode: pictures.mode },
      ),
    ),
    dropped.length ? droppedList(dropped) : "",
  );
}

const droppedList = (hits) =>
  el(
    "section",
    { className: "dropped" },
    el("h2", {}, "Pushed out by pictures"),
    el("ul", {}, ...hits.map((hit) => el("li", {}, el("span", {}, `${hit.rank}`), el("bdi", {}, hit.item.title ?? hit.item_id)))),
  );

function notice(className, heading, text, ...actions) {
  show(el("section", { className: `notice ${className}` }, el("h1", {}, heading), el("p", { dir: "auto" }, text), ...actions));
}

/** No item fits, which only filters can cause. */
export function showNothing(query, filtered, clear) {
  say(query ? `No products for “${query}”` : "No products");
  const text = filtered ? "No product passes all of these filters." : "The catalogue holds nothing to show.";
  notice("nothing", "Nothing found", text, filtered ? button("Clear filters", clear) : "");
}

/** What failed, in the service's own words, and a way on. */
export function showFailure(error, retry) {
  say("The search failed");
  byId("gate").hidden = true;
  notice("failure", "That did not work", error.message, button("Try again", retry));
}
