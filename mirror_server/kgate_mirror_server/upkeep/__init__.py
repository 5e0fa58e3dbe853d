"""What keeps a site healthy: retention, garbage, scrubbing, backup, and filling it again."""
