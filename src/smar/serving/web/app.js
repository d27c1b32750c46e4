// The search page: state in the address bar, one request in flight, everything drawn from the answer.

import * as api from "./api.js";
import { watchDetail } from "./cards.js";
import { buildSorts, showChips, showSort, showSubject } from "./chosen.js";
import { byId, plural } from "./dom.js";
import { startEvents } from "./events.js";
import { buildPanel, drawPanel, showPanel } from "./facets.js";
import { PAGE } from "./paging.js";
import { watchSheet } from "./sheet.js";
import { watchSuggestions } from "./suggest.js";
import { COMPARED, asked, clearFilters, empty, filterCount, fromAddress, toAddress, toFilter, valuesOf, worded } from "./state.js";
import { say, showComparison, showFailure, showGate, showLoading, showNear, showNothing, showRedirect, showResults, showStart } from "./views.js";

const MOST_CARDS = 100_000; // that the service counts among matches
const TYPING_PAUSE = 120; // ms: below it, a fast typist's words would be searched letter by letter

let state = fromAddress();
let offer = null; // what the shop offers; until it is known the panel's place is kept free, so that nothing moves
let shop = null; // promises what the start page shows
let loading = null; // resolves when the offer is known, or cannot be had
let running = new AbortController();
let timer = 0;
let typing = null; // the field in which the latest step of the browser's history is being typed
let liked = null; // the item whose like was looked for
const pictures = new Map(); // that were searched for: the address cannot hold one, the browser's history holds its key

/** Search after `pause` ms; a newer call replaces an older one, waiting or under way. */
function schedule(pause) {
  clearTimeout(timer);
  timer = setTimeout(run, pause);
}

/** Search and draw. */
async function run() {
  running.abort();
  const mine = (running = new AbortController());
  byId("filters").hidden = byId("open-filters").hidden = !asked(state) || offer?.facets.length === 0;
  if (!asked(state)) {
    shop ??= api.start().catch(() => null); // the page works without
    const found = await shop;
    return mine === running && finish(() => showStart(found, pick));
  }
  keepPlace(() => showLoading(worded(state) && !state.like && !state.picture));
  try {
    await loading; // the answer brings the counts of what is offered
    const how = state.picture || state.like ? alike : state.compare && worded(state) ? compare : single;
    const draw = await how(mine.signal);
    if (mine === running) finish(draw);
  } catch (error) {
    if (mine !== running || error.name === "AbortError") return;
    finish(() => {
      drawAround({});
      showFailure(error, retry);
    });
  }
}

function retry() {
  if (!offer) loading = load();
  run();
}

/** What every answer has, whatever was asked for. */
function drawAround({ facets = null, redirect = null, total = null }) {
  drawPanel(facets, state);
  showRedirect(redirect);
  byId("sheet-total").textContent = total?.relation === "exact" ? `Show ${plural(total.value, "product", "products")}` : "Show products";
}

function finish(draw) {
  byId("view").removeAttribute("aria-busy");
  keepPlace(draw);
}

/** Draw; where that takes away what the keyboard was on, it goes on from the results' begin. */
function keepPlace(draw) {
  const before = document.activeElement;
  draw();
  if (!before.isConnected) byId("results").focus({ preventScroll: true });
}

const request = (mode, k) => ({ query: state.q, mode, k, filter: toFilter(state) });

/** Whether hits that are not relevant are cut off. */
const cuts = () => worded(state) && !state.compare && Boolean(offer?.cutoffs?.includes(state.mode));

/** How the facets are counted: among all that matches, so that each choice leads to as many products as it counts;
 * among hits where a cut-off tells them from the rest, or where there are more cards than can be counted. */
function facets() {
  if (!offer?.facets.length) return null;
  const hits = worded(state) && (cuts() || (offer.collapse && offer.items > MOST_CARDS));
  return { columns: offer.facets, of: hits ? "hits" : "matches", top: 100 };
}

/** Search by the shopper's picture, or by an item: what looks and reads like it. */
async function alike(signal) {
  const { picture, like } = state;
  const filter = toFilter(state);
  const ask = (offset, k) => {
    const wanted = { k, offset, filter };
    return picture ? api.byPicture(picture, wanted, signal) : api.similar(like, wanted, signal);
  };
  const counted = facets() && api.counts({ ...facets(), of: "matches" }, filter, signal).catch(() => null);
  const [answer, item, counts] = await Promise.all([ask(0, PAGE), picture ? null : api.item(like, signal), counted]);
  const name = item ? nameOf(item) : "your picture";
  const shown = { ...answer, mode: picture ? "picture" : "similar", query: name };
  return () => {
    drawAround({ ...answer, facets: counts });
    showGate(null);
    liked = item ?? null;
    showSubject(subject(), forget);
    if (answer.hits.length) showResults(shown, ask, filter !== null);
    else showNothing(name, filterCount(state) > 0, clear);
  };
}

const nameOf = ({ item, item_id }) => item.title ?? item_id;

/** What is looked for instead of words. */
function subject() {
  if (state.picture) return { picture: state.picture, name: "your picture" };
  if (!state.like) return null;
  if (liked?.item_id !== state.like) return { name: "\u00a0" }; // the name follows with the answer
  return { picture: liked.picture, name: `like ${nameOf(liked)}` };
}

async function single(signal) {
  const { mode } = state;
  const { collapse } = offer ?? {};
  const wanted = { ...request(mode, PAGE), sort: state.sort ? [state.sort] : [], collapse: collapse?.column };
  if (cuts()) wanted.cutoff = true;
  const ask = (offset, k, more) => api.search({ ...wanted, offset, k, ...more }, signal);
  const answer = await ask(0, PAGE, { facets: facets() });
  return () => {
    drawAround(answer);
    showGate(worded(state) ? answer : null, mode);
    if (answer.hits.length) showResults(answer, ask, wanted.filter !== null || Boolean(answer.sorted), collapse);
    else if (answer.near?.length) showNear(answer, collapse);
    else showNothing(answer.query, filterCount(state) > 0, clear);
  };
}

async function compare(signal) {
  const mode = state.mode === "text" ? "adaptive" : state.mode;
  const [words, pictures] = await Promise.all(
    ["text", mode].map((each) => api.search({ ...request(each, COMPARED), facets: each === "text" ? null : facets() }, signal)),
  );
  return () => {
    drawAround(pictures);
    showGate(pictures, mode);
    if (pictures.hits.length) showComparison(words, pictures, COMPARED);
    else showNothing(pictures.query, filterCount(state) > 0, clear);
  };
}

/** The state changed, a step in the browser's history; what is typed into a `field` in one go is one step together. */
function changed(pause, field = null) {
  const step = field === null || field !== typing;
  typing = field;
  const address = toAddress(state);
  const picture = keyOf(state.picture);
  const same = address === location.pathname + location.search && picture === (history.state?.picture ?? null);
  if (!same) history[step ? "pushState" : "replaceState"]({ picture }, "", address);
  keepPlace(show);
  schedule(pause);
}

function typed() {
  scrollTo(0, 0);
  changed(TYPING_PAUSE, "query");
}

const keyOf = (picture) => [...pictures.keys()].find((key) => pictures.get(key) === picture) ?? null;

/** Controls, chips and title from the state; the results follow when they arrive. */
function show() {
  if (byId("query").value !== state.q) byId("query").value = state.q;
  for (const input of document.querySelectorAll("#modes input")) input.checked = input.value === state.mode;
  byId("compare").checked = state.compare;
  byId("compare").disabled = byId("modes").disabled = Boolean(state.like || state.picture || !worded(state) && asked(state));
  showSubject(subject(), forget);
  document.title = state.q ? `${state.q} · smar` : "smar";
  showPanel(state);
  showChips(state, changed);
  showSort(state);
}

/** Look for something else than before: words, an item's like, or a picture, one of them at a time. */
function turnTo({ q = "", like = "", picture = null }) {
  Object.assign(state, { q, like, picture });
  scrollTo(0, 0);
  changed(0);
}

const forget = () => turnTo({});

function lookAt(picture) {
  if (!picture || byId("camera").hidden) return false;
  if (picture.type.startsWith("image/")) {
    pictures.set(Date.now(), picture);
    turnTo({ picture });
  } else say(`“${picture.name}” is not a picture`);
  return true;
}

function clear() {
  clearFilters(state);
  changed(0);
}

function pick(query) {
  turnTo({ q: query });
  byId("query").focus();
}

/** Search for a suggestion; with a filter where it has one. */
function chooseSuggestion({ text, column, filter = column ? { column, value: text } : null }) {
  if (filter) {
    clearFilters(state);
    valuesOf(state, filter.column).add(filter.value);
  }
  turnTo({ q: text });
}

/** A picture may be chosen, dropped anywhere on the page, or pasted. */
function watchPictures() {
  byId("picture").addEventListener("change", (event) => {
    lookAt(event.target.files[0]);
    event.target.value = ""; // the same file may be chosen again
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault(); // else the browser leaves the page to show the file
    lookAt(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => lookAt(event.clipboardData.files[0]) && event.preventDefault());
  addEventListener("like", (event) => turnTo({ like: event.detail.item_id }));
}

function watch() {
  const query = byId("query");
  query.addEventListener("input", (event) => {
    Object.assign(state, { q: query.value, like: "", picture: null });
    if (!event.isComposing) typed();
  });
  query.addEventListener("compositionend", typed);
  addEventListener("change", () => (typing = null)); // done with a field: Enter, or gone elsewhere
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    if (query.value.trim()) turnTo({ q: query.value });
  });
  byId("modes").addEventListener("change", (event) => {
    state.mode = event.target.value;
    changed(0);
  });
  byId("compare").addEventListener("change", (event) => {
    state.compare = event.target.checked;
    changed(0);
  });
  document.addEventListener("keydown", (event) => {
    const elsewhere = event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, dialog:modal");
    if (event.key !== "/" || elsewhere || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    query.focus();
    query.select();
  });
  addEventListener("popstate", () => {
    state = fromAddress();
    state.picture = pictures.get(history.state?.picture) ?? null;
    typing = null;
    byId("detail").close();
    keepPlace(show);
    schedule(0);
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address stays what is searched for
    byId("results").focus();
  });
  document.querySelector(".brand").addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    state = empty();
    changed(0);
    query.focus();
  });
  byId("sheet-clear").addEventListener("click", clear);
  watchSheet();
  watchDetail();
  watchPictures();
  watchSuggestions(chooseSuggestion);
}

/** What the service can do and can be filtered by. */
async function load() {
  try {
    offer = await api.about();
    byId("camera").hidden = !offer.picture_search;
    startEvents(offer);
    buildPanel(offer, () => state, changed);
    buildSorts(offer, () => state, changed);
    show();
  } catch (error) {
    // searching works without the panel; say why it is not there
    byId("no-filters").textContent = `No filters: ${error.message}`;
  }
}

function start() {
  watch();
  show();
  loading = load();
  run();
  byId("layout").hidden = false;
}

start();
