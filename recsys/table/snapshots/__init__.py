"""How ``recsys.table.snapshot`` does it: files, one shard, one snapshot, a chain of them, and restoring."""
