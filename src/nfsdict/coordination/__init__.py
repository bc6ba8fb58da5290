"""What processes on all hosts do together: keys of memoised calls."""
