// The search page: state in the address bar, one request in flight, everything drawn from the answer.

import * as api from "./api.js";
import { watchDetail } from "./cards.js";
import { byId, el } from "./dom.js";
import { buildFilters, countFilters, showFilters, showSubject } from "./filters.js";
import { COMPARED, FIRST, MOST, asked, clearFilters, empty, filterCount, fromAddress, toAddress, toFilter } from "./state.js";
import { showComparison, showFailure, showGate, showLoading, showNothing, showResults, showStart } from "./views.js";

const TYPING_PAUSE = 120; // ms: below it, a fast typist's words would be searched letter by letter

let state = fromAddress();
let facets = null;
let filterable = true; // until the facets tell: the panel's place is kept free, so that nothing moves when it fills
let running = new AbortController();
let timer = 0;

/** Search after `pause` ms; a newer call replaces an older one, waiting or under way. */
function schedule(pause) {
  clearTimeout(timer);
  timer = setTimeout(run, pause);
}

async function run() {
  running.abort();
  const mine = (running = new AbortController());
  byId("filters").hidden = !asked(state) || !filterable;
  if (!asked(state)) return finish(() => showStart(facets, pick));
  showLoading(!state.like && !state.picture);
  try {
    const how = state.picture || state.like ? alike : state.compare ? compare : single;
    const draw = await how(mine.signal);
    if (mine === running) finish(draw);
  } catch (error) {
    if (mine === running && error.name !== "AbortError") finish(() => showFailure(error, run));
  }
}

function finish(draw) {
  byId("view").removeAttribute("aria-busy");
  draw();
}

const request = (mode, k) => ({ query: state.q, mode, k, filter: toFilter(state) });

const furtherThan = (answer, k) =>
  answer.hits.length === k && k < MOST ? () => ((state.k = Math.min(2 * k, MOST)), run()) : null;

/** Search by the shopper's picture, or by an item: what looks and reads like it. */
async function alike(signal) {
  const { picture, like, k } = state;
  const wanted = { k, filter: toFilter(state) };
  const [answer, name] = picture
    ? [await api.byPicture(picture, wanted, signal), "your picture"]
    : await Promise.all([api.similar(like, wanted, signal), api.item(like, signal).then(nameOf)]);
  const shown = { ...answer, mode: picture ? "picture" : "similar", query: name };
  return () => {
    showGate(null);
    if (answer.hits.length) showResults(shown, k, furtherThan(answer, k));
    else showNothing(name, filterCount(state) > 0, clear);
  };
}

function nameOf(found) {
  showSubject({ picture: found.picture, name: `like ${found.item.title ?? found.item_id}` }, forget);
  return found.item.title ?? found.item_id;
}

async function single(signal) {
  const { mode, k } = state;
  const answer = await api.search(request(mode, k), signal);
  const more = furtherThan(answer, k);
  return () => {
    showGate(answer, mode);
    if (answer.hits.length) showResults(answer, k, more);
    else showNothing(answer.query, filterCount(state) > 0, clear);
  };
}

async function compare(signal) {
  const mode = state.mode === "text" ? "adaptive" : state.mode;
  const [words, pictures] = await Promise.all(
    ["text", mode].map((each) => api.search(request(each, COMPARED), signal)),
  );
  return () => {
    showGate(pictures, mode);
    if (pictures.hits.length) showComparison(words, pictures, COMPARED);
    else showNothing(pictures.query, filterCount(state) > 0, clear);
  };
}

/** The state changed: `step` makes it a step of its own in the browser's history. */
function changed(pause, step = pause === 0) {
  state.k = FIRST;
  const address = toAddress(state);
  if (address !== location.pathname + location.search) history[step ? "pushState" : "replaceState"](null, "", address);
  show();
  schedule(pause);
}

/** Controls, chips and title from the state; the results follow when they arrive. */
function show() {
  if (byId("query").value !== state.q) byId("query").value = state.q;
  for (const input of document.querySelectorAll("#modes input")) input.checked = input.value === state.mode;
  byId("compare").checked = state.compare;
  byId("compare").disabled = byId("modes").disabled = Boolean(state.like || state.picture);
  if (state.picture) showSubject({ picture: state.picture, name: "your picture" }, forget);
  else showSubject(state.like ? { name: "\u00a0" } : null, forget); // the name follows with the answer
  document.title = state.q ? `${state.q} · smar` : "smar";
  showFilters(state, changed);
  if (facets) countFilters(facets, state);
}

/** Look for something else than before: words, an item's like, or a picture, one of them at a time. */
function turnTo({ q = "", like = "", picture = null }) {
  Object.assign(state, { q, like, picture });
  scrollTo(0, 0);
  changed(0, true);
}

const forget = () => turnTo({});

function lookAt(picture) {
  if (!picture?.type.startsWith("image/") || byId("camera").hidden) return false;
  turnTo({ picture });
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
    if (!event.isComposing) changed(TYPING_PAUSE, false);
  });
  query.addEventListener("compositionend", () => changed(TYPING_PAUSE, false));
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
    const typing = event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, dialog[open]");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    query.focus();
    query.select();
  });
  addEventListener("popstate", () => {
    state = fromAddress();
    show();
    schedule(0);
  });
  document.querySelector(".brand").addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    state = empty();
    changed(0, true);
    query.focus();
  });
  const wide = matchMedia("(min-width: 900px)");
  const unfold = () => (byId("filter-box").open = wide.matches);
  wide.addEventListener("change", unfold);
  unfold();
  watchDetail();
  watchPictures();
}

async function start() {
  watch();
  show();
  if (asked(state)) run();
  byId("layout").hidden = false;
  try {
    const [about, found] = await Promise.all([api.about(), api.facets()]);
    byId("camera").hidden = !about.picture_search;
    document.querySelector("#modes input[value=hybrid]").parentElement.hidden = !about.modes.includes("hybrid");
    facets = found;
    filterable = buildFilters(facets, () => state, changed);
    show();
  } catch (error) {
    // searching works without the panel; say why it is not there
    byId("filters").replaceChildren(el("p", { className: "quiet" }, `No filters: ${error.message}`));
  }
  if (asked(state)) byId("filters").hidden = !filterable;
  else run();
}

start();
