"""One self-contained page, tables and figures from the evaluation of one or more runs."""
