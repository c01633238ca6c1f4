"""The Library page: every adapter that was trained, made or brought in, and what can be done with one."""
