"""``python -m nearcast.agent``: see :mod:`nearcast.agent.main`."""

import sys

from nearcast.agent.main import main

if __name__ == "__main__":
    main(sys.argv[1:])
