"""Virtual tokens: prompt tuning, p-tuning, prefix tuning."""
