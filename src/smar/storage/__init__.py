"""Folders in an object store: `s3://`, `gs://` and what else fsspec writes to.

Read in this order: `location` (what is an address, its back-end), `objects` (what lies below it: parts, manifests),
`folders` (a folder published and fetched, whole or absent), `copies` (local copies of a command's remote arguments),
`following` (a service follows new versions).
"""
