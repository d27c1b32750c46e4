"""Answer POST /v1/encode with a query's vector, for an engine that is asked elsewhere.

smar encode-service embeddings --port 8081
"""

from argparse import ArgumentParser, Namespace

from smar.commands import arguments as types


def arguments(command: ArgumentParser) -> None:
    text = "embeddings, an index, or `smar export`'s"
    command.add_argument("folder", type=types.made, metavar="FOLDER", help=text)
    types.add_address(command)
    command.add_argument("--workers", type=types.positive, default=1, metavar="N", help="processes (default 1)")


def run(options: Namespace) -> None:
    from smar.core.logs import configure_logs
    from smar.serving.encode_route import encoder_in
    from smar.serving.options import service_options
    from smar.serving.supervise import serve

    encoder_in(options.folder)  # a wrong folder is told before anything is started
    configure_logs()
    serve(options.folder, options.host, options.port, service_options(workers=options.workers), encode=True)
