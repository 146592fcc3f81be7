"""The HTTP API, split by word: each module holds the routes of one. What they do is done by the rest of the room."""
