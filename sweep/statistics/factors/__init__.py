"""Which factor of a design matters: main effects, importances, trends."""
