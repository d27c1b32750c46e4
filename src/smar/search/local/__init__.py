"""The embedded engine: one folder that every process maps into memory. This is its only door.

Reading order: `open_version` searches a version (`version_files` opens it, `vectors` and `lists` find near vectors,
`word_index` and `postings` the words, `fusion` makes one ranking of the `candidates` of both); `arrange` makes a page
of what was found (`shape` says what may be asked, then `sorting`, `cards`, `counted`; `influence`, `asked` and
`synonyms` are a shop's rules); `build` writes a version (`forming`, `tuning`, `payload`; `room` is what it takes);
`live` adds changes (`updates` is the write-ahead log, `delta` the delta segment, `compact` makes a version of both),
and `versions` is the folder that holds it all.
"""

from smar.search.local.arrange import browse, check_place, page_of, search
from smar.search.local.build import RECALL_TARGET, build_index
from smar.search.local.cards import Collapse, Diversify, Others
from smar.search.local.counted import MOST_COLUMNS, MOST_VALUES, Facets, Of
from smar.search.local.expression_parser import EXAMPLE as RANK_EXAMPLE
from smar.search.local.expression_parser import MAX_LENGTH as MAX_RANK_LENGTH
from smar.search.local.facets import FacetCounts
from smar.search.local.found import FoundItems
from smar.search.local.influence import NO_INFLUENCE, Influence, Pin, Rule, moved_by
from smar.search.local.item_store import content_type
from smar.search.local.live import DELTA_LIMIT, Attempts, LastItem, UpdatableIndex
from smar.search.local.local_index import LocalIndex
from smar.search.local.neighbours import by_vector, similar
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.ready import picture_url, plain
from smar.search.local.segment import CatalogueView
from smar.search.local.shape import CANDIDATES, PLAIN, Page, Plan, Relation, Shape, Total
from smar.search.local.suggestions import Prefixes, Suggestions
from smar.search.local.vectors import exact_top
from smar.search.local.versions import UnreadableIndex, rollback

__all__ = [
    "CANDIDATES",
    "DELTA_LIMIT",
    "MAX_RANK_LENGTH",
    "MOST_COLUMNS",
    "MOST_VALUES",
    "NO_INFLUENCE",
    "PLAIN",
    "RANK_EXAMPLE",
    "RECALL_TARGET",
    "Attempts",
    "CatalogueView",
    "Collapse",
    "Diversify",
    "EmbeddedIndex",
    "FacetCounts",
    "Facets",
    "FoundItems",
    "Influence",
    "LastItem",
    "LocalIndex",
    "Of",
    "Others",
    "Page",
    "Pin",
    "Plan",
    "Prefixes",
    "Relation",
    "Rule",
    "Shape",
    "Suggestions",
    "Total",
    "UnreadableIndex",
    "UpdatableIndex",
    "browse",
    "build_index",
    "by_vector",
    "check_place",
    "content_type",
    "exact_top",
    "moved_by",
    "page_of",
    "picture_url",
    "plain",
    "rollback",
    "search",
    "similar",
]
