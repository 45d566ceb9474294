"""Data sets as ranges of addresses, in the formats of their readers."""
