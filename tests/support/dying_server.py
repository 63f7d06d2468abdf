"""`banyan server` that stops dead at a fail point: `python -m tests.support.dying_server POINT PORT CREDENTIALS`."""

import sys
from pathlib import Path

from banyan.api.server import serve
from banyan.config import load_server_settings
from tests.support.fail_points import Points, stop_at


def main() -> None:
    """Serve with the settings of the environment until a process of the server has passed the point."""
    point, port, credentials = sys.argv[1:]
    settings = load_server_settings({"server": {"port": int(port)}}, config=None)
    serve(settings, credentials=Path(credentials), listeners=[Points(stop_at(point))])


if __name__ == "__main__":
    main()
