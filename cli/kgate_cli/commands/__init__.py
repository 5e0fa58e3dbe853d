"""One module for each command; imported when it runs, so that `kgate --help` stays fast."""
