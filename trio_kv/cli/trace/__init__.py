"""`trace`: judges, sums up, shows, exports and merges traces. `command` has the commands and their options."""
