"""Search: words or vectors in, ranked items out; no HTTP and no torch.

Read `protocol` first (what every engine offers), then `query` (words to vectors), `filters` with `filter_parser`
(``price<50 and brand=Nike``), and `embeddings` (what `smar embed` wrote). `local` is the embedded engine;
`engines` opens the ones behind a URL: `remote_index` is what they share, `store` what each has to do, `stored` and
`predicates` how they hold columns and are asked with filters, then one file each.
"""
