"""The index: catalogue vectors bound to the query encoder that searches them.

`embeddings` reads what `smar embed` wrote, `build` makes a version of an index of it, `embedded` opens and searches it,
`live` adds updates (`updates` is their log, `delta` their form in memory, `compact` makes a version of both),
`versions` is the folder that holds it all. `query` turns words into vectors, `filters` turns
``price<50 and brand=Nike`` into a set of items, `facets` counts them.
Nothing here needs torch or transformers.
"""
