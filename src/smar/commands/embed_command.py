"""Encode the catalogue, or finish an encoding that was interrupted.

smar embed run dataset --out embeddings
smar embed run dataset --out embeddings --runner ray
smar embed run dataset --out embeddings --part 3/16
"""

from argparse import ArgumentParser, Namespace

from smar.commands import arguments as types
from smar.commands.command import LAST, Rows, say
from smar.core.progress import summary


def arguments(command: ArgumentParser) -> None:
    command.add_argument("run", type=types.made, metavar="RUN")
    command.add_argument("dataset", type=types.made, metavar="DATASET")
    command.add_argument("--out", type=types.folder, required=True, metavar="EMBEDDINGS")
    types.add_runner(command, "--part", "make the shards")
    types.add_device(command)


def run(options: Namespace) -> None:
    from smar.api.stages import embedded, part_embedded

    given = (options.run, options.dataset, options.out, options.device, options.runner)
    if options.part is not None:
        part = part_embedded(*given, options.part)
        shards = f"{part.shards} of {part.of} ({part.reused} from before)"
        title = f"part {options.part} of embeddings in {options.out}"
        summary(title, [("shards", shards), ("seconds", part.seconds)], LAST.format("--part"))
        return
    done = embedded(*given)
    status = ", ".join(f"{name} {count:,}" for name, count in sorted(done.manifest.image_status.items()))
    rows: Rows = [("items", done.manifest.items), ("pictures", status)]
    rows += [("shards", f"{len(done.manifest.shards)} ({done.reused} from before)")]
    rows += [("model", done.manifest.fingerprint), ("seconds", done.seconds)]
    summary(f"embeddings in {options.out}", rows, say("index", options.out, "--out", "index"))
