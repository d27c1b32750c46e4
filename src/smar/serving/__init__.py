"""The online service: HTTP API and search page over an index; needs neither torch nor transformers.

Reading order: `supervise` starts `worker`s, each of which answers with the `app`; `routes` takes a request, `question`
checks it, `batcher` puts together what comes at once, `engine` asks the index, `answers` prints (`schemas` and
`search_schemas` say what, also for OpenAPI). `change_routes` and `many` hand changes to the model worker (`writer`, by
`writer_client`); `events` and `journal` take what shoppers did; `rulebook` has a shop's rules, `several` and `split`
several indexes, `remote_app` and `remote_engine` an engine behind a URL; `guard` and `limits` keep keys and rates.
"""
