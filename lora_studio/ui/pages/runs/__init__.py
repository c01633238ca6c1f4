"""The list of runs in the Train page: all runs, the queue, and two runs compared."""
