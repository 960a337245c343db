"""Threads, forms, tables and figures in Qt, as all docks use them."""
