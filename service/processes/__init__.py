"""Several serving processes behind one port, as one service."""
