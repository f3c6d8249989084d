"""python app.py: open a Studio, build its page, put it on the network. Reads its arguments before anything heavy."""

import argparse
import locale
import os
import sys
from pathlib import Path

from glmstudio.environment import prepare
from glmstudio.errors import StudioError
from glmstudio.settings import DTYPES, NO_BASE, QUANTIZATIONS
from glmstudio.ui.address import Address, check_port, secured
from glmstudio.ui.language import LANGUAGES, error_text
from glmstudio.ui.quick_import import without_stub_files
from glmstudio.workspace import Workspace, repository_root


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python app.py", description="GLM Studio: annotate, train and compare ChatGLM-family models in one page."
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="address to listen on; 0.0.0.0 opens the page to the network and asks for a password "
        "(default 127.0.0.1 or GRADIO_SERVER_NAME)",
    )
    parser.add_argument(
        "--port",
        type=int,
        help="port, exactly (default: the first free one from 7860 or GRADIO_SERVER_PORT on)",
    )
    parser.add_argument(
        "--root", type=Path, default=repository_root(), help="folder that holds data/ and checkpoints/ (default: here)"
    )
    parser.add_argument(
        "--base",
        default="embedded",
        help="embedded (the demonstration base), a model folder, a Hugging Face id, or none: the one that was used "
        "last, loaded when somebody needs it",
    )
    parser.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        default="none",
        help="hold the base's linear layers in 8 or 4 bits (default none)",
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="numbers of the base (default auto: what is fast here)"
    )
    parser.add_argument("--share", action="store_true", help="make a public link (with a password)")
    parser.add_argument("--password", default="", help="password; each person logs in with a name of their own")
    parser.add_argument("--lang", choices=LANGUAGES, help="language where the browser has not chosen one")
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")
    return parser.parse_args(words)


def terminal_language(wish: str | None) -> str:
    """The language of what the terminal says: `--lang`, else that of the system."""
    system = locale.getlocale()[0] or ""
    return wish or ("zh" if system.lower().startswith(("zh", "chinese")) else "en")


def run(arguments: argparse.Namespace, language: str) -> None:
    # The page asks its own server whether it is up; a proxy of the system must not stand between.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1,localhost")))
    prepare()

    # A long import beside the page gives way often, or each of the many small turns of a click would wait 5 ms for it.
    sys.setswitchinterval(0.0005)
    address = secured(
        Address(arguments.host, arguments.port, arguments.share, arguments.password, arguments.lang or "")
    )
    check_port(address)

    with without_stub_files():
        from glmstudio.ui import serve
        from glmstudio.ui.build import build_app
        from glmstudio.ui.row_words import opening_lines
    from glmstudio.studio import Studio
    from glmstudio.studio.base_slot import BaseWish

    wish = BaseWish(arguments.base, dtype=arguments.dtype, quantization=arguments.quantization)
    studio = Studio(Workspace(arguments.root.resolve()), base=wish)
    blocks = build_app(studio)
    try:
        studio.start(load_base=False)
        for line in opening_lines(studio.broken_imports(), studio.former_database, language):
            print(line, flush=True)
        url = serve.launch(blocks, address)
        if arguments.base != NO_BASE:
            studio.load_base()
        serve.announce(blocks, address, url, language)
        for error in studio.damaged():
            print(error_text(error, language, command=True), file=sys.stderr, flush=True)
        if not arguments.no_browser:
            serve.open_browser(url)
        serve.wait(blocks)
    finally:
        studio.close()


def main() -> int:
    arguments = parse_arguments()
    language = terminal_language(arguments.lang)
    try:
        run(arguments, language)
    except StudioError as error:
        print(error_text(error, language, command=True), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
