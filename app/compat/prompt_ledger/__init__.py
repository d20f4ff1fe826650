"""PromptLedger's addresses that differ from ours; all others of its are ours (`catalogue`)."""
