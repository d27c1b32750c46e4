// A search client for InstantSearch (https://www.algolia.com/doc/guides/building-search-ui/): the widgets of instantsearch.js, React
// and Vue InstantSearch ask this service. It turns their requests into searches, sends them as one batch, and gives answers in their form.

const AT_ONCE = 32; // searches in a batch
const DEEPEST = 1000; // hits that the service shows of one search
const MOST_HITS = 200; // of one page
const MOST_VALUES = 200; // of one facet

/** Parameters that would change what is found, and that the service does not have. */
const REFUSED = [
  "tagFilters", "optionalFilters", "aroundLatLng", "aroundLatLngViaIP", "insideBoundingBox", "insidePolygon", "offset", "length",
  "restrictSearchableAttributes", "optionalWords", "similarQuery",
];

/** A client for `instantsearch({ searchClient: searchClient({ ... }), indexName: "shop" })`.
 *
 * `url` is the service's address (the one that this file came from), `path` where its batches go, `replicas` says how an index name
 * that `sortBy` chooses is sorted ({ shop_cheapest: "price" }), `search` is added to every search ({ mode: "hybrid" }), `of` tells whether
 * facets are counted among all "matches" of the filter or among "hits", and `key` is an API key where reading needs one. */
export function searchClient({ url = new URL(".", import.meta.url), path = "v1/search/batch", replicas = {}, search = {}, of = "matches", key = null } = {}) {
  const address = new URL(path, url);
  const headers = { "Content-Type": "application/json", ...(key && { "X-API-Key": key }) };

  async function post(searches) {
    const response = await fetch(address, { method: "POST", headers, body: JSON.stringify({ searches }) });
    const { answers, error } = await response.json();
    const failed = error ?? answers.find((answer) => answer.error)?.error;
    if (failed) throw Object.assign(new Error(failed.message), { name: failed.code, status: response.status });
    return answers;
  }

  async function ask(searches) {
    const started = performance.now();
    const parts = [];
    for (let at = 0; at < searches.length; at += AT_ONCE) parts.push(post(searches.slice(at, at + AT_ONCE)));
    const answers = (await Promise.all(parts)).flat();
    return answers.map((answer) => ({ ...answer, spent: Math.round(performance.now() - started) }));
  }

  const searchOf = (request) => ({ ...asSearch(request, of), ...sorted(request.indexName, replicas), ...search });

  /** Values of a facet that hold what is typed into the facet's own box. */
  async function searchForFacetValues(requests) {
    const wanted = requests.map(({ params, facet }) => ({ name: facet ?? params.facetName, text: params.facetQuery ?? "", params }));
    const answers = await ask(
      requests.map((request, at) => searchOf({ ...request, params: { ...request.params, hitsPerPage: 0, page: 0, facets: wanted[at].name, facetQuery: wanted[at].text.trim(), maxValuesPerFacet: MOST_VALUES } })),
    );
    return answers.map((answer, at) => facetHits(answer, wanted[at]));
  }

  return {
    async search(requests) {
      const [facets, plain] = [true, false].map((kind) => requests.filter(({ type }) => (type === "facet") === kind));
      const [values, answers] = await Promise.all([facets.length ? searchForFacetValues(facets) : [], plain.length ? ask(plain.map(searchOf)) : []]);
      const results = requests.map((request) => (request.type === "facet" ? values.shift() : asResult(answers.shift(), request, address)));
      return { results };
    },
    searchForFacetValues,
  };
}

const sorted = (index, replicas) => (Object.hasOwn(replicas, index) ? { sort: replicas[index] } : {});

/** One request of InstantSearch as a search of the service; throws where it asks for what the service does not have. */
function asSearch({ params = {} }, of) {
  for (const name of REFUSED) if (params[name]?.length) throw new Error(`${name} is not available in this search service.`);
  const { query = "", hitsPerPage = 20, page = 0, facets = [], facetQuery = "", maxValuesPerFacet = 100 } = params;
  if (hitsPerPage > MOST_HITS) throw new Error(`hitsPerPage is ${hitsPerPage}; at most ${MOST_HITS} are allowed.`);
  const columns = [facets].flat();
  if (columns.includes("*")) throw new Error('facets: "*" is not available; name the attributes.');
  const filter = filterOf(params);
  const k = Math.max(1, Math.min(hitsPerPage, DEEPEST - page * hitsPerPage)); // a page beyond the last one has no hits
  const found = { query, k, offset: Math.min(page * hitsPerPage, DEEPEST - 1), filter: filter || (query.trim() ? null : "exists(title)") };
  if (columns.length) found.facets = { columns, of, top: Math.min(maxValuesPerFacet, MOST_VALUES), within: true, ...(facetQuery && { contains: facetQuery }) };
  if (hitsPerPage === 0) found.fields = [];
  else if (params.attributesToRetrieve && !params.attributesToRetrieve.includes("*")) found.fields = params.attributesToRetrieve;
  return found;
}

const quoted = (text) => `"${String(text).replace(/[\\"]/g, "\\$&")}"`;

/** facetFilters and numericFilters as a filter; `filters` is one already, in the service's own grammar. */
function filterOf({ filters, facetFilters = [], numericFilters = [] }) {
  const all = (terms, one) => [terms].flat().map((term) => (Array.isArray(term) ? any(term, one) : one(term)));
  return [filters && `(${filters})`, ...all(facetFilters, facetTerm), ...all(numericFilters, numberTerm)].filter(Boolean).join(" and ");
}

const any = (terms, one) => terms.length && `(${terms.map(one).join(" or ")})`;

/** "brand:Nike", or "brand:-Nike" for all others. */
function facetTerm(text) {
  const at = text.indexOf(":");
  const [column, value] = [text.slice(0, at), text.slice(at + 1)];
  if (value.startsWith("-")) return `${quoted(column)} != ${quoted(value.slice(1))}`;
  return `${quoted(column)} = ${quoted(value.replace(/^\\-/, "-"))}`;
}

/** "price>=10", or "price:10 TO 20". */
function numberTerm(text) {
  const range = /^(.+?):\s*(\S+) TO (\S+)$/.exec(text);
  if (range) return `(${quoted(range[1])} >= ${range[2]} and ${quoted(range[1])} <= ${range[3]})`;
  const [, column, sign, value] = /^(.+?)\s*(<=|>=|!=|=|<|>)\s*(\S+)$/.exec(text) ?? [];
  if (!column) throw new Error(`numericFilters: ${text} is not read.`);
  return `${quoted(column)} ${sign} ${quoted(value)}`;
}

/** An answer in the form that InstantSearch draws. */
function asResult(answer, { params = {}, indexName }, address) {
  const { query = "", hitsPerPage = 20, page = 0 } = params;
  const { value: total, relation } = answer.total;
  const beyond = page * hitsPerPage >= DEEPEST;
  return {
    index: indexName,
    query,
    params: new URLSearchParams({ query, hitsPerPage, page }).toString(),
    page,
    hitsPerPage,
    nbHits: total,
    nbPages: hitsPerPage ? Math.ceil(Math.min(total, DEEPEST) / hitsPerPage) : 0,
    exhaustive: { nbHits: relation === "exact", facetsCount: true },
    exhaustiveNbHits: relation === "exact",
    exhaustiveFacetsCount: true,
    processingTimeMS: answer.spent,
    hits: hitsPerPage === 0 || beyond ? [] : answer.hits.map((hit) => asHit(hit, query, params, address)),
    ...facetsOf(answer.facets ?? {}),
  };
}

function facetsOf(counted) {
  const named = Object.entries(counted);
  const values = ({ values }) => Object.fromEntries((values ?? []).map(({ value, count }) => [value, count]));
  const numbers = named.filter(([, { low }]) => typeof low === "number");
  return {
    facets: Object.fromEntries(named.map(([name, facet]) => [name, values(facet)])),
    facets_stats: Object.fromEntries(numbers.map(([name, { low, high }]) => [name, { min: low, max: high }])),
  };
}

function asHit({ item_id, item, picture, score, others }, query, params, address) {
  return {
    ...item,
    objectID: item_id,
    picture: picture && new URL(picture, address).href,
    _score: score,
    ...(others && { _others: others.count }),
    _highlightResult: highlighted(item, query, params),
  };
}

const WORD = /[\p{L}\p{M}\p{N}]+/gu;
const folded = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

/** A text with the words that begin as a word of the query does between tags, and the words of the query that were met. */
function mark(text, wanted, before, after) {
  const met = new Set();
  const value = text.replace(WORD, (word) => {
    const found = wanted.filter((one) => folded(word).startsWith(one));
    for (const one of found) met.add(one);
    return found.length ? before + word + after : word;
  });
  return { value, matchedWords: [...met], matchLevel: !met.size ? "none" : met.size < wanted.length ? "partial" : "full" };
}

function highlighted(item, query, { attributesToHighlight, highlightPreTag = "<em>", highlightPostTag = "</em>" }) {
  const wanted = [...new Set((query.match(WORD) ?? []).map(folded))];
  const shown = (name) => !attributesToHighlight || attributesToHighlight.includes("*") || attributesToHighlight.includes(name);
  const one = (value) => (Array.isArray(value) ? value.map(one) : mark(String(value), wanted, highlightPreTag, highlightPostTag));
  return Object.fromEntries(Object.entries(item).filter(([name, value]) => value !== null && (typeof value !== "object" || Array.isArray(value)) && shown(name)).map(([name, value]) => [name, one(value)]));
}

function facetHits(answer, { name, text, params }) {
  const { maxFacetHits = 10, highlightPreTag = "<em>", highlightPostTag = "</em>" } = params;
  const found = answer.facets[name].values ?? [];
  const words = (text.match(WORD) ?? []).map(folded);
  const hits = found.slice(0, maxFacetHits).map(({ value, count }) => ({ value, count, highlighted: mark(value, words, highlightPreTag, highlightPostTag).value }));
  return { facetHits: hits, exhaustiveFacetsCount: found.length < MOST_VALUES, processingTimeMS: answer.spent };
}
