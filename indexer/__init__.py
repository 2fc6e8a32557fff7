"""Feature maps in, a crash-safe store on disk out. Knows nothing of queries."""
