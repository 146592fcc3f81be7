"""What a decoder of msgspec may raise for bytes of others: more than its own errors, so it is named in one place.

Text that is not UTF-8 is a `UnicodeDecodeError`, not one of msgspec's, and nesting without end a `RecursionError`. Who
reads a file, a peer's answer or a body catches all three: else a flipped bit, or somebody far away, ends the process.
"""

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
