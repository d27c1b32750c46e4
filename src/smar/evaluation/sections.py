"""The sections of report.md, each from the findings alone; an empty text is a section that has nothing to say."""

from collections.abc import Sequence

from smar.evaluation.examples import Example, RoutedQuery
from smar.evaluation.findings import KEY_SLICES, Findings, label
from smar.evaluation.markdown import cell, chance, difference, figure, picture, ranged, table
from smar.evaluation.measure import ComparisonRow
from smar.evaluation.slices import ALL
from smar.evaluation.systems import ALWAYS

HOW = """## How to read this

- Every model ranks the whole catalogue for every test query; clicked or judged items are the relevant ones.
- R = share of a query's relevant items in the top k, P = share of the top k that is relevant, both averaged
  over queries; F1 is the harmonic mean of these two averages; nDCG has gains 2^grade - 1; MRR is the mean
  reciprocal rank of the first relevant item.
- [low, high] is the 95 % interval of a bootstrap over queries. Differences are paired: both models see the
  same queries. p is of a paired randomisation test (signs flipped at random, two-sided), "corrected" is Holm's p over
  all comparisons of its table. A difference in bold has a corrected p below 0.05.
- `cold_items` counts only items never clicked in training, `new_pairs` only query-item pairs never clicked in
  training, `unseen_queries` only queries that training does not have. `needs_image`: the titles of most
  fitting items leave out something that is asked and that the picture shows; `words_suffice`: no title does.
  `column=value`: most of the query's relevant items have that value. `title_words` (all, some, none) counts only
  items whose title holds so many of the query's words; `unknown_words`: the query has a word that no item has, perhaps
  a misspelt one; `query_words`: by their number.
- `hidden`: cold items whose text does not name what the query asks, each ranked against wrong items only
  (the query's other relevant items are taken out of the ranking).
- The intervals tell of chance in the queries, not of chance in training: another seed trains another model. Of several
  seeds, ± is the sample standard deviation (n - 1) of their figures; in tests a query counts once, with its mean.
"""
CONTROLS_HOW = """Controls of the run's own model. *Always text*, *always multimodal*: the gate held at 0 or 1. *Its
picture vectors*: the image tower's alone. *Hard routing*: above the threshold the multimodal vectors, else the text
vectors. *Random gate*: the gate's own values dealt out to other queries. *Oracle gate*: per query the better of always
text and always multimodal, an upper bound that no gate reaches. *Shuffled pictures*: every item shows another item's
picture; *no pictures*: none shows any.
"""
_NAMED = 30
"""How many left out slices a report names."""


def head(findings: Findings) -> str:
    """Title, note, and how the report came about."""
    facts = findings.facts
    note = f"> **{cell(facts.note)}**\n\n" if facts.note else ""
    rows = [(what, f"{value:,}" if isinstance(value, int) else cell(value)) for what, value in facts.rows]
    rows += [(f"training seconds, {model}", f"{took:,.0f}") for model, took in facts.training_seconds.items()]
    return f"# Evaluation\n\n{note}" + (table(("", "value"), rows) if rows else "")


def summary(findings: Findings) -> str:
    """Recall on the slices that matter most, one line a model."""
    recall, found = findings.recall, findings.found
    shown = {name: text for name, text in KEY_SLICES.items() if name in findings.slices}
    lines = [(cell(label(model)), *(ranged(found[model, name, recall]) for name in shown)) for model in findings.models]
    heads = [f"{text} ({findings.slices[name]:,} queries)" for name, text in shown.items()]
    text = f"## {recall}\n\n" + table(("model", *heads), lines)
    missing = [cell(text) for name, text in KEY_SLICES.items() if name not in shown]
    return text + (f"\nNot here: {', '.join(missing)} (too few queries, or no truth).\n" if missing else "")


def by_slice(findings: Findings) -> str:
    """Recall of every model on every slice, and the difference of two of them."""
    recall, found, models = findings.recall, findings.found, findings.models
    paired = findings.compared(findings.reference)
    heads = ["slice", "queries", *(cell(label(model)) for model in models)]
    if paired:
        heads.append(cell(f"{findings.own} - {findings.reference}"))
    lines = []
    for name, queries in findings.slices.items():
        line = [cell(name), f"{queries:,}", *(ranged(found[model, name, recall]) for model in models)]
        lines.append([*line, difference(paired[name])] if name in paired else line)
    text = f"## {recall} by slice\n\n{table(heads, lines)}\n![{recall} by slice](recall-by-slice.png)\n"
    if findings.left_out:
        named = ", ".join(f"{cell(name)} ({queries})" for name, queries in findings.left_out[:_NAMED])
        more = f", and {len(findings.left_out) - _NAMED:,} more" if len(findings.left_out) > _NAMED else ""
        text += f"\nLeft out, too few queries: {named}{more}.\n"
    return text


def significance(findings: Findings) -> str:
    """p of the own model against every other model on every slice."""
    return _chance(findings, f"## Is it more than chance? {findings.recall}, {cell(findings.own)} minus", False)


def harm(findings: Findings) -> str:
    """Do no harm: slices where the own model is below another one, and where pictures do more harm than good."""
    others = set(findings.models) - {findings.own}
    below = [row for row in _proven(findings, findings.own) if row.baseline in others and row.value < 0]
    lines = [(cell(row.slice), cell(label(row.baseline)), difference(row)) for row in below]
    own = cell(label(findings.own))
    text = f"## Do no harm\n\nNo slice where {own} is significantly below another model.\n"
    if lines:
        heads = ("slice", "model", f"{findings.recall}, {own} minus it")
        text = f"## Do no harm\n\n{own} is significantly below:\n\n{table(heads, lines, left=2)}"
    always = next((row.model for row in findings.comparisons if _kind(row.model) == ALWAYS), None)
    pictures = [] if always is None else _proven(findings, always)
    for what, rows in (("hurt", [r for r in pictures if r.value < 0]), ("help", [r for r in pictures if r.value > 0])):
        named = ", ".join(f"{cell(row.slice)} ({row.value:+.3f})" for row in rows) or "no slice"
        text += f"\nPictures {what} (always multimodal minus always text) in {named}.\n" if always else ""
    return text if len(findings.models) > 1 or always else ""


def _kind(model: str) -> str:
    return model.partition(" (")[0].rpartition("/")[2]


def _proven(findings: Findings, model: str) -> list[ComparisonRow]:
    return [row for row in findings.comparisons if row.model == model and row.significant]


def seeds(findings: Findings) -> str:
    """Recall of every seed on the slices that matter most, beside their mean."""
    recall, found = findings.recall, findings.found
    lines = []
    for row in filter(findings.seeds.__contains__, findings.models):
        for name in filter(findings.slices.__contains__, KEY_SLICES):
            runs = [(member.partition("/")[0], found[member, name, recall].value) for member in findings.seeds[row]]
            each = "; ".join(f"{cell(run)} {value:.3f}" for run, value in runs)
            lines.append((cell(label(row)), KEY_SLICES[name], figure(found[row, name, recall]), each))
    if not lines:
        return ""
    heads = ("model", "queries", "mean ± standard deviation", "each seed")
    return f"## {recall} by seed\n\n{table(heads, lines, left=2)}"


def controls(findings: Findings) -> str:
    """Recall of the controls on every slice, then their p."""
    if not findings.controls:
        return ""
    found, recall = findings.found, findings.recall
    names = [name for name in findings.shown if name in findings.controls]
    models = [findings.own, *(name for name in findings.models if name.partition(" (")[0] == ALWAYS), *names]
    lines = [(cell(name), *(ranged(found[model, name, recall]) for model in models)) for name in findings.slices]
    text = f"## Controls: {recall}\n\n{CONTROLS_HOW}\n{table(('slice', *(cell(label(m)) for m in models)), lines)}"
    return text + "\n" + _chance(findings, f"### {cell(findings.own)} minus its controls", True)


def _chance(findings: Findings, title: str, of_controls: bool) -> str:
    """A table of comparisons: slices down, other models across."""
    rows = {(row.slice, row.baseline): row for row in findings.comparisons if row.model == findings.own}
    others = [m for m in dict.fromkeys(m for _, m in rows) if (m in findings.controls) == of_controls]
    if not others:
        return ""
    lines = [(cell(name), *(chance(rows[name, other]) for other in others)) for name in findings.slices]
    heads = [cell(label(other)) for other in others]
    count = len(lines) * len(others)
    return f"{title}\n\nDifference; p; p corrected for {count:,} comparisons.\n\n{table(('slice', *heads), lines)}"


def all_metrics(findings: Findings) -> str:
    """Every metric over all queries."""
    names = [row.metric for row in findings.rows if row.slice == ALL and row.model == findings.models[0]]
    lines = [(metric, *(ranged(findings.found[m, ALL, metric]) for m in findings.models)) for metric in names]
    return "## All test queries\n\n" + table(("metric", *(cell(label(m)) for m in findings.models)), lines)


def categories(findings: Findings) -> str:
    """Gain and share of routed queries by category."""
    gains = findings.gains()
    if not gains:
        return ""
    routed = findings.routed_shares
    heads = [cell(findings.categories), "queries", cell(f"{findings.own} - {findings.reference}")]
    lines = [[cell(row.slice.partition("=")[2]), f"{row.queries:,}", difference(row)] for row in gains]
    if routed is not None:
        heads.append("routed to pictures")
        lines = [[*line, f"{routed[row.slice]:.1%}"] for line, row in zip(lines, gains, strict=True)]
    title = f"## Where pictures help: {findings.recall} by {cell(findings.categories)}"
    return f"{title}\n\n{table(heads, lines)}\n![gain by category](categories.png)\n"


def gates(findings: Findings) -> str:
    """Share of queries routed to pictures by slice, and how well the gate knows which need them."""
    if not findings.gates:
        return ""
    names = [name for name in findings.slices if name in findings.gates[0].routed]
    heads = [f"{cell(gate.model)}, p > {gate.threshold:g}" for gate in findings.gates]
    lines = [(cell(name), *(f"{gate.routed[name]:.1%}" for gate in findings.gates)) for name in names]
    text = "## What the gate decides\n\nShare of queries routed to the pictures:\n\n" + table(("slice", *heads), lines)
    known = [(gate.model, gate.auc) for gate in findings.gates if gate.auc is not None]
    if known:
        text += "\nAUC of the probability for the truth `needs_image` (0.5 = blind, 1 = perfect): "
        text += "; ".join(f"{cell(model)} {ranged(auc)}" for model, auc in known) + ".\n"
    return text + "\n![gate](gate.png)\n"


def routed(findings: Findings) -> str:
    """Queries at the two ends of the gate."""
    ends = (("highest", findings.routed[0]), ("lowest", findings.routed[1]))
    parts = [
        f"### Queries of the {what} image probability\n\n{_routed_table(queries, findings.recall)}"
        for what, queries in ends
        if queries
    ]
    return "\n".join(parts)


def _routed_table(queries: Sequence[RoutedQuery], recall: str) -> str:
    lines = [(cell(q.query), f"{q.probability:.3f}", f"{q.text:.2f}", f"{q.multimodal:.2f}") for q in queries]
    return table(("query", "image probability", f"{recall}, always text", f"{recall}, always multimodal"), lines)


def examples(findings: Findings) -> str:
    """Queries gained and lost, with the pictures of their first hits."""
    if not findings.examples:
        return ""
    what = cell(f"{findings.own} over {findings.reference}")
    parts = [
        f"## Examples\n\nLargest gains of recall of {what}, then largest losses. ✓ = clicked or judged relevant.\n"
    ]
    for example in findings.examples:
        gate = "" if example.probability is None else f" (image probability {example.probability:.2f})"
        parts.append(f"### {cell(example.query)}{gate}\n")
        parts.append(_hits_table(example, findings))
    return "\n".join(parts)


def _hits_table(example: Example, findings: Findings) -> str:
    width = max(len(hits) for hits in example.lists.values())
    lines = []
    for model, hits in example.lists.items():
        shown = [
            picture(findings.pictures.get(hit.item), f"{'✓' if hit.relevant else '·'} {hit.title}") for hit in hits
        ]
        lines.append([cell(label(model)), f"{example.recall[model]:.2f}", *shown, *[""] * (width - len(shown))])
    return table(("model", "recall", *map(str, range(1, width + 1))), lines, left=width + 2)
