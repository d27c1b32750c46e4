"""The index: catalogue vectors bound to the query encoder that searches them.

`embeddings` reads what `smar embed` wrote, `build` makes an index of it, `embedded` opens and searches it,
`query` turns words into vectors, `filters` turns ``price<50 and brand=Nike`` into a set of items.
Nothing here needs torch or transformers.
"""
