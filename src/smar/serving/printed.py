"""A search's answer for people, on the terminal."""

from smar.serving.engine import SearchResult


def print_result(result: SearchResult) -> None:
    """Print the hits of a search, and what else it tells."""
    page = result.page
    print(f"pictures help: {result.image_probability:.0%}   {sum(result.timings.values()):.1f} ms")
    if result.note is not None:
        print(result.note)
    if result.mostly_unknown:
        print(f"{result.unknown:.0%} of the query is unknown to the model and to the items' words")
    if page.redirect is not None:
        print(f"a rule sends the shopper to {page.redirect}")
    for word, found in result.found.corrected.items():
        print(f"no item holds {word}: read as {', '.join(found)}")
    if page.near is not None:
        print("no exact match" + "; similar:" * bool(len(page.near)))
    for place, hit in enumerate(result.hits if page.near is None else result.index.hits(page.near), page.first + 1):
        shown = [hit.payload.get(name) for name in ("brand", "category", "price")]
        facts = ", ".join(str(value) for value in shown if value is not None)
        others = "" if page.others is None else f"  and {page.others[place - page.first - 1].count} more"
        print(f"{place:>3}  {hit.score:.3f}  {hit.item_id}  {hit.payload.get('title')}  [{facts}]{others}")
    for name, facet in (page.facets or {}).items():
        counts = [f"{entry.value} {entry.count}" for entry in facet.values or ()]
        counts = counts or [f"{_range(entry.low, entry.high)} {entry.count}" for entry in facet.ranges or ()]
        print(f"{name}: {', '.join(counts)}")
    if page.cut is not None:
        print(f"relevant hits: {page.total.value:,}")
    elif not page.total.value:
        print("no item matches the filter")
    elif not len(page.hits):
        print(f"nothing further: there are {page.total.value:,}")


def _range(low: float | str | None, high: float | str | None) -> str:
    return f"below {high}" if low is None else f"from {low}" if high is None else f"{low} to {high}"
