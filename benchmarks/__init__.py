"""Each performance claim as a command that measures it against a baseline in the same run."""
