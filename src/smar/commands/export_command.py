"""Write a model for machines without torch or smar: its query encoder, or a sentence-transformers folder.

smar export run --out encoder
smar export run --embeddings embeddings --precision int8 --out encoder
smar export run --baseline dpsr --format sentence-transformers --out sentences
"""

from argparse import ArgumentParser, Namespace

from smar.commands import arguments as types
from smar.commands.command import Rows, say
from smar.core.errors import InputError
from smar.core.progress import summary


def arguments(command: ArgumentParser) -> None:
    add = command.add_argument
    add("run", type=types.made, metavar="RUN")
    add("--out", type=types.folder, required=True, metavar="DIR")
    add("--baseline", metavar="NAME", help="a baseline of the run instead of its own model")
    text = "onnx: query tower and gate as a graph (default); sentence-transformers: queries and items of kind dpsr"
    add("--format", choices=("onnx", "sentence-transformers"), default="onnx", help=text)
    text = "add int8, measured on their validation queries"
    add("--embeddings", type=types.made, metavar="EMBEDDINGS", help=text)
    text = "the default of the folder (float32)"
    add("--precision", choices=("float32", "int8"), default="float32", help=text)


def run(options: Namespace) -> None:
    from smar.export.onnx import PROBE, export_query
    from smar.export.quantise import add_int8
    from smar.model.run_folder import load_encoder
    from smar.search.query import Precision, QueryManifest

    if options.format != "onnx":
        _export_sentences(options)
        return
    if options.precision == "int8" and options.embeddings is None:
        raise InputError("--precision int8 needs --embeddings EMBEDDINGS: its cost is measured before it is used.")
    if options.out.exists() and any(options.out.iterdir()):
        QueryManifest.read(options.out, "smar export")  # an older export is replaced, anything else is not
    manifest = export_query(load_encoder(options.run, options.baseline), options.out, PROBE)
    if options.embeddings is not None:
        manifest = add_int8(options.out, options.embeddings, Precision(options.precision))
    rows: Rows = [("model", manifest.fingerprint), ("default", str(manifest.precision))]
    if (cost := manifest.int8) is not None:
        lost = f"cost {cost.recall_cost:.2%}; {cost.overlap:.1%} of the top 50 equal"
        rows.append(("recall@50 float32", f"{cost.float32:.4f} on {cost.queries:,} validation queries"))
        rows.append(("recall@50 int8", f"{cost.int8:.4f} ({lost})"))
    next_command = say("index", "embeddings", "--query", options.out, "--out", "index")
    summary(f"query encoder in {options.out}", rows, next_command)


def _export_sentences(options: Namespace) -> None:
    from smar.export.sentences import export_sentences
    from smar.model.run_folder import load_encoder

    if options.embeddings is not None or options.precision != "float32":
        raise InputError("--embeddings and --precision belong to --format onnx: int8 is of the ONNX graph.")
    if options.out.exists() and any(options.out.iterdir()) and not (options.out / "modules.json").is_file():
        raise InputError(
            f"{options.out} is not empty and was not made by this command (no modules.json). Choose another --out."
        )
    encoder = load_encoder(options.run, options.baseline)
    worst = export_sentences(encoder, options.out)
    rows: Rows = [("model", encoder.fingerprint), ("largest difference", f"{worst:.0e}")]
    summary(f"sentence-transformers folder in {options.out}", rows)
