"""Jobs: plain functions that a command runs, or a queue hands to any number of workers."""
