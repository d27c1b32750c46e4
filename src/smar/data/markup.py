"""HTML in texts: entities and tags, as shop systems export them, become what they show."""

import html
import re

_INLINE = (
    "a|abbr|b|big|cite|code|del|em|font|i|ins|kbd|label|mark|q|s|samp|small|span|strike|strong|sub|sup|tt|u|var|wbr"
)
_BLOCKS = (
    "blockquote|body|br|center|dd|div|dl|dt|footer|h[1-6]|header|hr|html|img|li|ol|p|pre|script|section|style|table|"
    "tbody|td|tfoot|th|thead|tr|ul"
)
_TAGS = f"{_INLINE}|{_BLOCKS}"
MARKUP = rf"(?i)&(#[0-9]+|#x[0-9a-f]+|[a-z][a-z0-9]*);|</?({_TAGS})(\s[^<>]*)?/?>|<!--"
"""Pattern of what is read as HTML, for the database and for Python; `a < b`, `<3` and `R&D` are not."""
_ENTITY = re.compile(r"&(#[0-9]+|#x[0-9a-f]+|[a-z][a-z0-9]*);", re.IGNORECASE)
_HIDDEN = re.compile(r"<!--.*?(-->|$)|<(script|style)\b.*?(</\2\s*>|$)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(rf"</?({_TAGS})(\s(\"[^\"]*\"|'[^']*'|[^<>\"'])*)?/?>", re.IGNORECASE)
_IN_LINE = re.compile(rf"</?({_INLINE})\b", re.IGNORECASE)
_FOUND = re.compile(MARKUP)


def plain_text(text: str) -> str:
    """A text without HTML: entities decoded, tags taken out; a text without any comes back as it is.

    >>> plain_text("Caf&eacute; &amp; Bar, <b>Red</b> dress<br>new, a < b")
    'Café & Bar, Red dress new, a < b'
    """
    if not _FOUND.search(text):
        return text
    decoded = _HIDDEN.sub(" ", _ENTITY.sub(lambda found: html.unescape(found[0]), text))
    return " ".join(_TAG.sub(lambda found: "" if _IN_LINE.match(found[0]) else " ", decoded).split())
