"""How sure a table's ranking is: the statistics of `results.statistics`, of a table's rows."""
