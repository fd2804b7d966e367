"""Display: progress, results and errors on a terminal and in a notebook."""
