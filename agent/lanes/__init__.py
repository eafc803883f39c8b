"""Question and answer with the processes that touch hardware; the boundary that isolates them."""
