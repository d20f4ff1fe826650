"""The working process: claim a job, do one step, record it. The only process that has providers."""
